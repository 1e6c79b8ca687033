"""Tiny models of Transformers with random weights, asked which keys a query meets."""

import torch
import transformers

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_attention_heads": 4}
ENCODER = {**SMALL, "intermediate_size": 48, "max_position_embeddings": 512}
DECODER = {**ENCODER, "num_key_value_heads": 2}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SEPARATE = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
SEPARATE |= {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "d_model": 32}
SEPARATE |= {"vocab_size": 97}
T5 = {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
MODERN = {**ENCODER, **TOKENS, "cls_token_id": 1, "sep_token_id": 2}

# Model type -> (class of the model, what makes it tiny).
SIZES = {
    "mistral": ("Mistral", DECODER | TOKENS),
    "mixtral": ("Mixtral", DECODER | TOKENS | {"num_local_experts": 2}),
    "phi3": ("Phi3", DECODER | TOKENS),
    "qwen2": ("Qwen2", DECODER | TOKENS),
    "qwen3": ("Qwen3", DECODER | TOKENS | {"head_dim": 8}),
    "gemma2": ("Gemma2", DECODER | TOKENS | {"head_dim": 8}),
    "gemma3_text": ("Gemma3Text", DECODER | TOKENS | {"head_dim": 8}),
    "gpt_oss": ("GptOss", DECODER | TOKENS | {"head_dim": 8} | EXPERTS),
    "cohere2": ("Cohere2", DECODER | TOKENS),
    "olmo3": ("Olmo3", DECODER | TOKENS),
    "llama4_text": (
        "Llama4Text",
        DECODER
        | TOKENS
        | {"head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 2},
    ),
    "llama": ("Llama", DECODER | TOKENS),
    "gpt2": ("GPT2", {"vocab_size": 97, "n_embd": 32, "n_head": 4} | TOKENS),
    "gpt_neo": ("GPTNeo", {"vocab_size": 97, "hidden_size": 32, "num_heads": 4}),
    "modernbert": ("ModernBert", MODERN),
    "modernbert-decoder": ("ModernBertDecoder", MODERN),
    "bert": ("Bert", ENCODER),
    "roberta": ("Roberta", ENCODER),
    "distilbert": (
        "DistilBert",
        {"vocab_size": 97, "dim": 32, "n_heads": 4, "hidden_dim": 48},
    ),
    "longformer": ("Longformer", ENCODER | {"pad_token_id": 0}),
    "led": (
        "LED",
        SEPARATE
        | {"max_encoder_position_embeddings": 512}
        | {"max_decoder_position_embeddings": 512},
    ),
    "bart": ("Bart", SEPARATE | {"max_position_embeddings": 512}),
    "whisper": (
        "Whisper",
        SEPARATE
        | TOKENS
        | {"num_mel_bins": 8, "max_source_positions": 50, "max_target_positions": 64}
        | {"encoder_layers": 2, "decoder_layers": 2, "decoder_start_token_id": 1},
    ),
    "t5": ("T5", T5),
    "longt5": ("LongT5", T5),
    "big_bird": ("BigBird", ENCODER),
    "pegasus_x": ("PegasusX", SEPARATE),
    "recurrent_gemma": (
        "RecurrentGemma",
        {k: v for k, v in DECODER.items() if k != "max_position_embeddings"} | TOKENS,
    ),
}


def config_of(kind, **changes):
    name, sizes = SIZES[kind]
    return getattr(transformers, f"{name}Config")(**sizes, **changes)


def model_of(kind, head="Model", **changes):
    """A tiny model whose weights are large enough that no key's share is 0."""
    torch.manual_seed(0)
    name = SIZES[kind][0]
    name = name if head == "Model" else name.removesuffix("Text")
    model = getattr(transformers, name + head)(config_of(kind, **changes)).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        if name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    return model


def width_of(model):
    return model.get_input_embeddings().weight.shape[1]


def meets(model, n, queries):
    """Which inputs the last layer's outputs depend on, (queries, n), by gradients."""
    x = torch.randn(1, n, width_of(model), requires_grad=True)
    return depends(model(inputs_embeds=x)[0], x, queries)


def depends(output, x, queries):
    """Which places of x each query's output depends on, (queries, n)."""
    rows = []
    for query in queries:
        loss = (output[0, query] * torch.randn(output.shape[-1])).sum()
        (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
        rows.append(gradient[0].abs().sum(-1) > 0)
    return torch.stack(rows)


def layers_meet(model, depth, n, queries, **inputs):
    """What each layer's output depends on of its input, (layers, queries, n)."""
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    layers = next(found for found in lists if len(found) == depth)
    seen = []

    def record(layer, positional, named, output):
        x = positional[0] if positional else named["hidden_states"]
        output = output[0] if isinstance(output, tuple) else output
        seen.append((output, x))

    for layer in layers:
        layer.register_forward_hook(record, with_kwargs=True)
    model(
        inputs_embeds=torch.randn(1, n, width_of(model), requires_grad=True), **inputs
    )
    return torch.stack([depends(output, x, queries) for output, x in seen])
