"""Files in local folders, on shared mounts and in object stores, through one set of functions."""

from detector_core.storage.listing import Listing, list_files
from detector_core.storage.paths import (
    absolute,
    delete_file,
    delete_folder,
    exists,
    is_uri,
    join,
    local_copy,
    locate,
    locked,
    names,
    private_folder,
    put_folder,
    read_bytes,
    read_json,
    replacing,
    write_bytes,
)

__all__ = [
    "Listing",
    "absolute",
    "delete_file",
    "delete_folder",
    "exists",
    "is_uri",
    "join",
    "list_files",
    "local_copy",
    "locate",
    "locked",
    "names",
    "private_folder",
    "put_folder",
    "read_bytes",
    "read_json",
    "replacing",
    "write_bytes",
]
