/* Chapters before pages, pages before names of the API; excerpts of text alone. */
Scorer.score = ([page, , , , score]) =>
  score + (page.startsWith("notebooks/") ? 40 : page.startsWith("book/api") ? 0 : 20);

const REMOVED = ".headerlink, script, style, svg, .attn-x, nav, footer, .bd-header-article, .MathJax_Preview";

Search.htmlToText = (html, anchor) => {
  const page = new DOMParser().parseFromString(html, "text/html");
  page.querySelectorAll(REMOVED).forEach((node) => node.remove());
  const article = page.querySelector("article") ?? page.body;
  const place = anchor ? page.getElementById(anchor.slice(1)) : null;
  return (place ?? article).textContent.replace(/\\\((.*?)\\\)/g, "$1").replace(/\s+/g, " ");
};
