"""Every setting of the command line, in one object read from ``RAGKIT_*`` variables (and ``.env``).

Library code takes arguments; only the command line and the apps read these.
"""

from __future__ import annotations

from pathlib import Path

import platformdirs
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="RAGKIT_", env_file=".env", extra="ignore")

    model: str = "mini"  # "mini", "mini-base", a model folder, a Hub id, or the URL of an embeddings server
    embedder_api_key: SecretStr | None = None  # of the server that `model` or `ragkit doctor` names
    embedder_name: str = ""  # the model's name there, where it serves several
    embedder_folder: str = ""  # an export of the served model: fingerprint, tokenizer and reference vectors
    serve_api_keys: SecretStr | None = None  # of `ragkit serve`: keys with commas between them
    store: str = str(Path(platformdirs.user_data_dir("ragkit")) / "store")  # a folder, or the URL of a Qdrant server
    qdrant_api_key: SecretStr | None = None  # for a server only
    cache: Path = Path(platformdirs.user_cache_dir("ragkit"))  # the unpacked base weights of "mini"
    passage_tokens: int = 200  # longest passage, in the encoder's tokens
