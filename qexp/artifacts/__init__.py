"""Artifacts by what they were made of.

A stage is a function; :class:`Store` calls it only when no finished folder is filed under the key of
its inputs. The key hashes the stage's name, its ``version`` and the identity of each positional
input: a config slice by its values, everything else by its ``fingerprint``. The folder is built
aside, listed in a manifest with checksums, and renamed into place: what stands under a key is whole,
whenever and however the process died.

    outputs/artifacts/<stage>/<key>/            finished
    outputs/artifacts/<stage>/<key>.lease       held, with a heartbeat, by who builds it
    outputs/artifacts/<stage>/<key>.work-N/     being built; its scratch/ survives a killed process
    outputs/artifacts/<stage>/<key>.broken-N/   did not match its manifest; never used again
"""

from __future__ import annotations

from qexp.artifacts.disk import writing
from qexp.artifacts.manifest import difference
from qexp.artifacts.stage import Stage, Workplace, digest, identity
from qexp.artifacts.store import Store, Watcher

__all__ = ["Stage", "Store", "Watcher", "Workplace", "difference", "digest", "identity", "writing"]
