"""A bucket at Google or at anything that speaks S3, through obstore."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from tunesmith.config.secrets import redact
from tunesmith.storage.store import (
    CHUNK,
    AlreadyThereError,
    DeniedError,
    Entry,
    MissingError,
    UnreachableError,
    check_key,
)

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
RETRIES = 2
"""Further attempts at a request, within seconds."""
_LATER = ("408", "425", "429")
_REMEDIES = {
    "gs": "sign in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a service "
    "account's key file; the account needs to list, read, create and delete objects in that bucket",
    "s3": "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (AWS_ENDPOINT_URL for another provider); the "
    "key needs to list, read, create and delete objects in that bucket",
}


class BucketStore:
    """Objects in a bucket, below the folder that the address names.

    Args:
        url: `gs://bucket/folder` or `s3://bucket/folder`.
        environ: where credentials and endpoints are read; None takes the process's own.
    """

    def __init__(self, url: str, environ: dict[str, str] | None = None) -> None:
        self.url = url.rstrip("/")
        self._kind, _, rest = self.url.partition("://")
        bucket, _, prefix = rest.partition("/")
        environ = dict(os.environ) if environ is None else environ
        with self._explained(""):
            make = _google if self._kind == "gs" else _s3
            self._store: Any = make(bucket, prefix or None, environ)

    def put(self, key: str, content: bytes | Path, *, create: bool = False) -> None:
        """See `Store.put`. Large files go up in parts; such an upload that is cut leaves nothing that can be listed."""
        import obstore

        with self._explained(key, writing=True):
            if create:
                body = content if isinstance(content, bytes) else content.read_bytes()
                obstore.put(self._store, check_key(key), body, mode="create")
            else:
                obstore.put(self._store, check_key(key), content, chunk_size=CHUNK, max_concurrency=4)

    def read(self, key: str) -> Iterator[bytes]:
        """See `Store.read`. Each piece of a large object is a request of its own: a cut connection costs one piece."""
        import obstore

        with self._explained(key):
            found = obstore.get(self._store, check_key(key))
            size = int(found.meta["size"])
            whole = bytes(found.bytes()) if size <= CHUNK else None
        if whole is not None:
            yield whole
            return
        del found
        for start in range(0, size, CHUNK):
            with self._explained(key):
                part = bytes(obstore.get_range(self._store, key, start=start, end=min(start + CHUNK, size)))
            yield part

    def list(self, prefix: str) -> list[Entry]:
        """See `Store.list`."""
        import obstore

        with self._explained(prefix):
            batches = obstore.list(self._store, check_key(prefix) if prefix else None)
            return sorted(Entry(str(meta["path"]), int(meta["size"])) for batch in batches for meta in batch)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        import obstore

        with contextlib.suppress(MissingError), self._explained(key):
            obstore.delete(self._store, check_key(key))

    @contextlib.contextmanager
    def _explained(self, key: str, *, writing: bool = False) -> Iterator[None]:
        from obstore import exceptions

        place = f"{self.url}/{key}" if key else self.url
        try:
            yield
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise AlreadyThereError("there is such an object already", place=place) from error
        except FileNotFoundError as error:
            if writing or "NoSuchBucket" in str(error):
                raise DeniedError(
                    "there is no such bucket", place=place, remedy="create it, or correct the address"
                ) from error
            raise MissingError("there is no such object", place=place) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise DeniedError(_reason(error), place=place, remedy=_REMEDIES[self._kind]) from error
        except (exceptions.BaseError, OSError, ValueError) as error:
            kind = DeniedError if _is_final(str(error)) else UnreachableError
            remedy = _REMEDIES[self._kind] if kind is DeniedError else "see your connection, and the service's status"
            raise kind(_reason(error), place=place, remedy=remedy) from error


def _reason(error: BaseException) -> str:
    """One line of what the client says; it repeats whole answers and its own inside."""
    text = str(error).strip()
    code = _CODE.search(text)
    line = text.splitlines()[0] if text else type(error).__name__
    line = line.partition(": <?xml")[0]
    return redact(line[:300]) + (f" ({code.group(1)})" if code else "")


def _is_final(text: str) -> bool:
    """Whether trying again is useless: no credentials, or an answer that blames the request."""
    status = _STATUS.search(text)
    if status and status.group(1).startswith("4") and status.group(1) not in _LATER:
        # A proxy or clock may answer 400 to one request and not to the next; these two say what they mean.
        return "RequestTimeout" not in text and "RequestTimeTooSkewed" not in text
    return "token request" in text or "credential" in text.lower()


def _options(endpoint: str | None) -> dict[str, Any]:
    return {
        "client_options": {
            "connect_timeout": timedelta(seconds=float(os.environ.get("TUNESMITH_STORAGE_CONNECT_TIMEOUT", "10"))),
            "timeout": timedelta(seconds=float(os.environ.get("TUNESMITH_STORAGE_TIMEOUT", "60"))),
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
        },
        # Longer outages are the caller's to wait out, where they can be shown.
        "retry_config": {
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=20),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
        },
    }


def _s3(bucket: str, prefix: str | None, environ: dict[str, str]) -> Any:
    from obstore.store import S3Store

    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    names = {
        "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
        "region": "AWS_REGION",
    }
    config: dict[str, Any] = {key: environ[name] for key, name in names.items() if environ.get(name)}
    config["disable_bulk_delete"] = True  # one request a key, which every provider answers
    config.setdefault("region", environ.get("AWS_DEFAULT_REGION", "us-east-1"))
    if endpoint:
        config["endpoint"] = endpoint
    provider = None if "access_key_id" in config else _profile(environ)
    return S3Store(bucket, prefix=prefix, config=config, credential_provider=provider, **_options(endpoint))


def _profile(environ: dict[str, str]) -> Callable[[], Any] | None:
    """Credentials of `~/.aws`, which boto3 reads where it is installed."""
    files = [Path(environ.get("HOME", "~")).expanduser() / ".aws" / name for name in ("credentials", "config")]
    if not environ.get("AWS_PROFILE") and not any(file.exists() for file in files):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        provider: Callable[[], Any] = Boto3CredentialProvider()
        return provider
    except ImportError as error:
        raise DeniedError(
            "credentials of an AWS profile need boto3", place="AWS_PROFILE", remedy="pip install boto3"
        ) from error


def _google(bucket: str, prefix: str | None, environ: dict[str, str]) -> Any:
    from obstore.store import GCSStore

    emulator = environ.get("STORAGE_EMULATOR_HOST")
    config: dict[str, Any] = {}
    if emulator:
        endpoint = emulator if "://" in emulator else f"http://{emulator}"
        account = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": "", "private_key": ""}
        config["service_account_key"] = json.dumps({**account, "private_key_id": ""})
    elif environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        config["application_credentials"] = environ["GOOGLE_APPLICATION_CREDENTIALS"]
    return GCSStore(bucket, prefix=prefix, config=config, **_options(config and emulator and endpoint or None))
