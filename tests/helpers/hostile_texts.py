"""Texts on which tokenizers differ: real ones of several scripts and languages, and hostile ones."""

from __future__ import annotations

import random
from pathlib import Path

REAL = [
    Path(__file__).with_name("damage.py").read_text(),
    "The engine doesn't split as you'd think: it's 1,234.56 €, I'LL; we'Ve 3rd-party code (v2.0)!\n\n  - a\n\t- b\r\n",
    "def f(x):\n    return {'a': [1, 22, 333, 4444, 55555], \"b\": None}  # TODO\n\n\n\nclass A: ...\n",
    '{"id": "9f86d081884c7d65", "n": [1e-5, -12.50], "ok": true, "path": "C:\\\\a\\\\b"}',
    "Größe, naïve façade, Łódź, ΣΊΣΥΦΟΣ, Привет, мир! Straße 12 — «цитата» … „Zitat“ “quote”",
    "我想在apple工作1314151天～ 今日は、世界！カタカナ・ひらがな。 한국어 텍스트입니다. ㄱㄴㄷ ㄅㄆㄇ",
    "مرحبا بالعالم، كيف حالك؟ שלום עולם ۱۲۳ ٤٥٦ हिन्दी में पाठ। বাংলা ไทยภาษา ភាសាខ្មែរ မြန်မာ",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 ✅ 🚀(normal) 😶‍🌫️ x² ½ Ⅷ ∑∫√ ≠ ™ © €£¥ ﬁ Ａ１ ①",
    "https://example.com/a/b?c=d&e=%20f#g mailto:a.b@c.org ~/.config $HOME ../x\\y",
]
HOSTILE = [
    "", " ", "  ", "   a", "a ", "\n", "\n\n", " \n", "\n ", "\r\n", "\r\r\n\n\r", "\t\t\ta", " \t \n \r \v \f x",
    "\x00", "a\x00b\x00\x00", "\x01\x02\x1b[0m\x7f\x80\x85\x9f", "a\x04b\x05\x04c",
    "a\x85b\x1cc\x1dd\u2028e\u2029f\u00a0g\u3000h\u180ei\u200bj\ufeffk",
    "<0x0A>", "a<0x0A>b <0xFF> <0xE2><0x96><0x81>", "\u2581", "a\u2581b \u2581\u2581 \u2581c",
    "<s></s><unk>", "</s >< s>", "<|im_start|>", "<|im_end|", "<| end |>", "[INST]x[/INST]", "<|begin|><|end|>",
    "<start_of_turn>user\nhi<end_of_turn>\n",
    "e\u0301\u0327\u0308 o\u0302\u0303x \u0301 \u0301a 1\u0301 !\u0301 Z\u0351\u036b\u0343\u036a\u0302\u036bA\u034d",
    "'s 'S 'ſ 'll 'LL 'lL 'Ll 're 'RE 'vE 'x 'sabc a's1 's's 'd'D 'ſt ''s ' s", "İıſKÅ ǅǈ ʰˠ ªº",
    " " * 300, "\n" * 300, "\t" * 70, " \n" * 150, "\r\n" * 100, "a" * 500, "A" * 300, "1" * 301, "!" * 200, "-" * 64,
    "1 22 333 4444 55555 1234567890 12345678901 1,000,000 ١٢٣٤ ²³ 1a2b3c 0x1F ½½½½ ⅧⅧⅧ 1\u06602",
    "a\nb\n\nc\n\n\nd \n e\n /x\n//y\n/ \n\n/z !\n/ ?\r\n/ .\n", "x  y   z    w     \n     v  ",
    "foo/bar/\n/baz ///\n\n", "a /\n/", "a\n \n \r\n\r \r b", "!\r\n\n\r?",
    "camelCaseXMLHttpRequest HTTPServer iPhone McDonald's ALLCAPS'S aB AB aBc ABC's 日本Aa日本 éÉé ÀÈ'll",
    "\U0001fae9 \U0001cc00 \u1c89\u1c8a \U000105c0 \U00016130 \u2427 \u0897a",  # assigned after Unicode 15.1
    "\ue000\uf8ff\ufdd0\ufffe\uffff\U0010ffff\U000e0001",
    "IMGIMGABCZ IMGIMGABCDEZ <sentinel:12> <sentinel:> x<sentinel:3>y",
    "(a|b).,!?…。，、।۔،) ( x) |y .z", "　全角　空白。　、", "~！-／：～‘’‟ ・ ー",
    "\u4e00\u9fa5\u9fa6\u9fff\u3400\u4dbf\U00020000\U0002a6df\U0002fa1f\uf900あ\u3007々〆",
    "각갂힣\ud7a4\ud7b0\u1100ᅠ", "a\u200d\u200cb\u00adc",
]  # fmt: skip

_PARTS = [
    "a", "B", "the", " the", "ing", "I'll", "'S", "'re", " ", "  ", "    ", "\n", "\n\n", "\r\n", "\t", "1", "42",
    "12345", " 7", ".", "...", "!", "?!", "/", "//", "_", "-", "é", "É", "ß", "\u0301", "—", "…", "，", "。", "、",
    "日本", "カ", "한", "ㄱ", "ш", "Ш", "א", "م", "١", "²", "½", "Ⅷ", "😀", "\u200d", "\u00a0", "\u3000", "\u2009",
    "\u0085", "\x1c", "\x00", "\v", "$", "+", "<=>", "^", "`", "|", "~", "(", ")", "{", "}", "[", "]", "\\", '"', "'",
    "<|end|>", "<0x0A>", "\u2581", "\ufffd", "ǅ", "ʰ", "ª", "\U0001fae9", "\U000105c0",
]  # fmt: skip


def mixtures(count: int, seed: int = 1) -> list[str]:
    """Random texts whose parts meet in every way."""
    rng = random.Random(seed)
    return [
        "".join(rng.choice(_PARTS) if rng.random() < 0.93 else _character(rng) for _ in range(rng.randrange(1, 40)))
        for _ in range(count)
    ]


def _character(rng: random.Random) -> str:
    code = rng.choice([rng.randrange(0x80, 0x3000), rng.randrange(0xE000, 0x110000), rng.randrange(0x3000, 0xD800)])
    return chr(code)
