"""Files pushed to the Hugging Face hub, or to another server of its protocol (``HF_ENDPOINT``).

All files come with one commit, so that nobody sees half of them. Large ones are stored before it, each by its content:
a push that broke off sends only what is not there yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ontopic.config.network import http_options
from ontopic.errors import UserError

_PATIENCE_S, _CONNECT_S = 600, 30


def check_pushable(repository: str) -> None:
    """See before any work that a push could be tried.

    Raises:
        UserError: that is no repository's name, there is no token, or the hub's client is told to stay offline.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise UserError(
            f"{repository[:100]!r} is no name of a repository on the Hugging Face hub; give it as OWNER/NAME"
        ) from None
    if constants.HF_HUB_OFFLINE:
        raise UserError("HF_HUB_OFFLINE is set in the environment, so nothing can be pushed; unset it")
    if not get_token():
        raise UserError(
            "there is no token of the Hugging Face hub; set HF_TOKEN, in the environment or in .env, to one that may "
            "write"
        )


def push(
    files: Mapping[str, Path | bytes],
    repository: str,
    *,
    kind: Literal["model", "dataset"] = "model",
    message: str,
) -> str:
    """Put files into a repository, which is made, private, where there is none.

    Args:
        files: by their names there; a file on the disk, or its content.
        message: of the commit.

    Returns:
        The URL of the commit; of the present one where no file differs.

    Raises:
        UserError: ``check_pushable`` would; the hub can't be reached, refuses, or breaks off.
    """
    check_pushable(repository)
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi, constants, set_client_factory

    options = http_options(constants.ENDPOINT)
    # By default it waits for ever.
    patience = httpx2.Timeout(_PATIENCE_S, connect=_CONNECT_S)
    set_client_factory(lambda: httpx2.Client(follow_redirects=True, timeout=patience, **options))
    api = HfApi()
    operations = [CommitOperationAdd(name, str(of) if isinstance(of, Path) else of) for name, of in files.items()]
    with _said_plainly(repository):
        api.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        done = api.create_commit(repository, operations, commit_message=message, repo_type=kind)
    return str(done.commit_url)


@contextmanager
def _said_plainly(repository: str) -> Iterator[None]:
    """One sentence for what a hub refuses or breaks off."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    where = f"{repository} at {constants.ENDPOINT}"
    try:
        yield
    except HfHubHTTPError as error:
        raise UserError(f"{where}: {_refusal(error)}") from error
    except httpx2.HTTPError as error:
        raise UserError(
            f"{where}: the hub can't be reached ({type(error).__name__}); check HF_ENDPOINT and the network, and run "
            "the same command again: what was sent already is not sent anew"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:  # of the client's threads, with the cause behind it
        cause = error.__cause__
        said = _refusal(cause) if isinstance(cause, HfHubHTTPError) else str(cause or error).partition("\n")[0][:200]
        raise UserError(
            f"{where}: the push broke off ({said}); run the same command again: what was sent already is not sent anew"
        ) from error


def _refusal(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return "the hub does not know the token; check HF_TOKEN"
    if status in (403, 404):
        return "the token may not write there; give HF_TOKEN one that may, or a repository of your own"
    words = (getattr(error, "server_message", None) or str(error)).strip().partition("\n")[0][:200]
    return f"the hub answers {status} ({words}); run the same command again: what was sent already is not sent anew"
