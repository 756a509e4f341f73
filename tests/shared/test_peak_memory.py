import subprocess
import sys

from shared.peak_memory import peak_rss_mb

READ = "from shared.peak_memory import peak_rss_mb; print(peak_rss_mb())"


def test_the_peak_stays_after_memory_is_given_back():
    before = peak_rss_mb()
    size = int(before + 64) << 20
    block = bytearray(size)
    block[::4096] = b"x" * len(range(0, size, 4096))
    del block
    assert peak_rss_mb() >= before + 63


def test_a_child_does_not_inherit_the_peak_of_its_parent():
    parent = f"""
import subprocess, sys
block = bytearray(200 << 20)
print(subprocess.check_output([sys.executable, "-c", {READ!r}], text=True))
"""
    done = subprocess.run(
        [sys.executable, "-c", parent], capture_output=True, text=True, check=True
    )
    assert 1 < float(done.stdout) < 100
