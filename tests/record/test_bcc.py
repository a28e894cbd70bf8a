"""What the recorder says when the compiler of its kernel programs gives up."""

import subprocess
import sys

ENDS = """
import ctypes, os
from stratokit.record.bcc import compiler_output
libc = ctypes.CDLL(None)
with compiler_output(compiles=True):
    os.write(2, b"In file included from x\\nLLVM ERROR: out of memory\\n")
    {end}
"""


def said(end: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", ENDS.replace("{end}", end)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_a_compiler_that_ends_the_recorder_is_told():
    """LLVM calls exit(1), which no part of Python hears of; or memory is so short that the kernel kills."""
    sentence = (
        "stratokit: the compiler of the kernel programs ended the recorder, most often for want of memory: "
        "LLVM ERROR: out of memory\n"
    )
    assert said("libc.exit(1)") == (1, sentence)
    assert said("os.kill(os.getpid(), 9)") == (-9, sentence)


def test_a_compiler_that_ends_well_says_nothing():
    assert said("pass") == (0, "")
