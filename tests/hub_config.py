"""JupyterHub on this computer, set up as deploy/jupyterhub/values.yaml says.

tests/test_hub.py starts it and names the folder and the port in its environment. What
is of a cluster is replaced: servers are processes, each user's home a folder.
"""

import os
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER, PORT = Path(os.environ["HUB_FOLDER"]), int(os.environ["HUB_PORT"])
VALUES = yaml.safe_load((ROOT / "deploy/jupyterhub/values.yaml").read_text())

c = get_config()  # noqa: F821 - JupyterHub puts it there
for name, settings in VALUES["hub"]["config"].items():
    c[name].update(settings)

c.JupyterHub.bind_url = f"http://127.0.0.1:{PORT}"
c.JupyterHub.hub_port = PORT + 1
c.JupyterHub.db_url = f"sqlite:///{FOLDER}/hub.sqlite"
c.JupyterHub.cookie_secret_file = f"{FOLDER}/secret"
c.JupyterHub.cleanup_servers = True
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{PORT + 2}"
PROXY = ROOT / ".hub/node_modules/.bin/configurable-http-proxy"
c.ConfigurableHTTPProxy.command = [str(PROXY)]
c.ConfigurableHTTPProxy.pid_file = f"{FOLDER}/proxy.pid"

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = f"{FOLDER}/homes/{{username}}"
c.Spawner.default_url = VALUES["singleuser"]["defaultUrl"]
c.Spawner.environment = {
    **VALUES["singleuser"]["extraEnv"],
    **{k: v for k, v in os.environ.items() if k.startswith("GIT_CONFIG_")},
    "JUPYTER_PATH": f"{FOLDER}/jupyter",
}
if os.geteuid() == 0:
    c.Spawner.args = ["--allow-root"]
