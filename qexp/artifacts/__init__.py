"""Content-addressed store of stage results.

A stage is a function that :class:`Store` calls only if no finished folder exists under the key of its
inputs. The key hashes the stage's name, its ``version`` and the identity of each input: the values of a
config section, and the ``fingerprint`` of everything else. A folder is built under a temporary name, listed
in a manifest with checksums, and renamed into place, so that an artifact is complete at whatever point a
process was killed.

    outputs/artifacts/<stage>/<key>/            finished artifact
    outputs/artifacts/<stage>/<key>.lease       lease with a heartbeat, held by the process that builds it
    outputs/artifacts/<stage>/<key>.work-N/     under construction; its scratch/ survives a killed process
    outputs/artifacts/<stage>/<key>.broken-N/   did not match its manifest; never used again
"""

from __future__ import annotations

from qexp.artifacts.disk import writing
from qexp.artifacts.manifest import difference
from qexp.artifacts.stage import BuildDir, Stage, digest, identity
from qexp.artifacts.store import Store, StoreListener

__all__ = ["BuildDir", "Stage", "Store", "StoreListener", "difference", "digest", "identity", "writing"]
