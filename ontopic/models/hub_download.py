"""Models of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ontopic.config.network import check_way_out
from ontopic.errors import UserError

TOKENIZER_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
WEIGHTS = ["*.safetensors"]


def downloaded(name: str, files: list[str]) -> Path:
    """A model's folder in the hub's cache, with these files fetched into it.

    Raises:
        UserError: the hub does not know the model, does not let this machine have it, or cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except Exception as error:  # the hub client raises a dozen unrelated types
        if said := _not_ours_to_have(name, error):
            raise UserError(said) from error
        if not constants.HF_HUB_OFFLINE and not isinstance(error, HFValidationError):
            check_way_out()
        raise UserError(
            f"model {name!r} is not a folder and could not be had from the Hugging Face hub ({type(error).__name__}); "
            "give a local path, log in with HF_TOKEN, or use 'embedded'"
        ) from error


def _not_ours_to_have(name: str, error: BaseException) -> str:
    """What is missing where the hub asks for a licence, or refuses who asks; else nothing."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    page = f"{constants.ENDPOINT}/{name}"
    for each in _chain(error):
        if isinstance(each, GatedRepoError):
            if get_token() is None:
                return f"{name} asks for a licence; accept it at {page}, and put that account's HF_TOKEN into .env"
            return f"the account of HF_TOKEN has no access to {name}; accept its licence at {page}"
        if isinstance(each, HfHubHTTPError) and each.response.status_code == 401:
            if get_token() is None:
                return (
                    f"the hub shows no model {name} to who is not logged in; check the name, or put HF_TOKEN into .env"
                )
            return "the hub does not take the token in HF_TOKEN; make a new one on its page for access tokens"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
