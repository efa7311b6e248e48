"""A compiled network is found again by all that it depends on, and by nothing else."""

from pathlib import Path

from openscans.networks import compiled_cache


def test_a_key_changes_with_every_fact() -> None:
    keys = [compiled_cache.key_of(*facts) for facts in [("f32",), ("bf16",), ("f32", "bf16"), ("bf16", "f32"), ()]]
    assert len(set(keys)) == len(keys)
    assert compiled_cache.key_of("f32") == keys[0]


def test_a_digest_changes_with_every_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    digests = [compiled_cache.digest_of(files) for files in [[one], [other], [one, other], [other, one]]]
    assert len(set(digests)) == len(digests)
    one.write_bytes(b"3")
    assert compiled_cache.digest_of([one]) not in digests
