"""Zip files with a checksum, which are written whole or not at all."""

import contextlib
import hashlib
import io
import os
import secrets
import shutil
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sk_resnet._state import BROKEN, ModelFileError

FILE_FORMAT = 1
# The comment at the end of the zip file: format, then the SHA-256 of all before the digest.
MARK = b"sk_resnet-"
DIGEST = 64


# What members of a zip file that cannot be read end in, beside values that are broken.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    ImportError,
    RuntimeError,
    EOFError,
    StopIteration,
    MemoryError,
    # Of the headers of arrays, which NumPy reads as Python.
    SyntaxError,
    tokenize.TokenError,
    np.exceptions.ComplexWarning,
    UserWarning,
)


def write_archives(contents: Mapping[Path, dict[str, Any]]) -> None:
    """Write plain values and arrays, by the path of their file; all of them or none."""
    replace_files(
        {
            Path(os.path.realpath(path)): sealed(
                skops_io().dumps(content, compression=zipfile.ZIP_STORED)
            )
            for path, content in contents.items()
        }
    )


def read_archive(path: Path, key: str) -> dict[str, Any]:
    """Read what `write_archives` wrote, of the kind that has this key."""
    content = checked(path.read_bytes(), path, key)
    try:
        check_compression(content)
        with warnings_as_errors():
            found = skops_io().loads(content)
        if not isinstance(found, dict) or key not in found:
            raise ModelFileError(f"{path} is no {key}.")
        return found
    except ModelFileError:
        raise
    except skops_io().exceptions.UntrustedTypesFoundException as error:
        raise ModelFileError(
            f"{path} holds no {key}, but other objects, such as a saved model."
        ) from error
    except (*BROKEN, *UNREADABLE) as error:
        raise ModelFileError(
            f"{path} is no {key} that can be read ({type(error).__name__}: {error})."
        ) from error


@contextlib.contextmanager
def warnings_as_errors() -> Iterator[None]:
    """Refuse arrays of which NumPy warns: none that was written here is so."""
    with warnings.catch_warnings():
        # Of a number whose file holds a complex one.
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        warnings.filterwarnings("error", ".*created on Python 2", UserWarning)
        yield


def skops_io() -> Any:
    """Module skops.io, which needs not be installed."""
    try:
        import skops.io
    except ImportError:
        raise ImportError(
            "sk_resnet.save and sk_resnet.load need skops: pip install 'sk-resnet[secure]'."
        ) from None
    return skops.io


def sealed(content: bytes) -> bytes:
    """Zip file with the format and a checksum in its comment."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = MARK + f"{FILE_FORMAT:04d}".encode() + b"0" * DIGEST
    content = buffer.getvalue()[:-DIGEST]
    return content + hashlib.sha256(content).hexdigest().encode()


def checked(content: bytes, path: Any, kind: str = "model") -> bytes:
    """The same, or an error that says what is wrong with the file of that kind."""
    body, digest = content[:-DIGEST], content[-DIGEST:]
    mark = body[-len(MARK) - 4 : -4]
    if mark != MARK:
        raise ModelFileError(f"{path} is no {kind} that sk_resnet wrote, or is cut off.")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ModelFileError(
            f"{path} is damaged: its checksum does not fit. Copy it again."
        )
    if not body[-4:].isdigit():
        raise ModelFileError(f"{path} has no number of its format: it is no {kind}.")
    if int(body[-4:]) > FILE_FORMAT:
        raise ModelFileError(
            f"{path} is of format {int(body[-4:])}, but this sk_resnet reads formats up to "
            f"{FILE_FORMAT}: upgrade sk_resnet."
        )
    return content


def check_compression(content: bytes) -> None:
    """Refuse members that are not compressed as here, whose errors are of many kinds."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        kinds = {member.compress_type for member in archive.infolist()}
    if others := kinds - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise zipfile.BadZipFile(f"members are compressed in another way: {others}")


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write files whole, flushed to the disk, or leave what was there."""
    parts: dict[Path, Path] = {}
    try:
        for target, content in contents.items():
            # Not by tempfile, whose files only the owner can read; 255 bytes are a name's
            # limit.
            part = target.parent / f".{target.name[:50]}.{secrets.token_hex(4)}"
            with part.open("xb") as file:
                parts[target] = part
                if target.exists():
                    shutil.copymode(target, part)  # while there is nothing to read
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for target, part in parts.items():
            os.replace(part, target)
    except BaseException:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        # The new files are in place, and not every file system can flush a folder.
        for folder in {target.parent for target in contents}:
            with contextlib.suppress(OSError):
                _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
