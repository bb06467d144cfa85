"""What encoders are asked, in many scripts and of odd characters."""

from pathlib import Path

PASSAGES = [p.read_text() for p in sorted((Path(__file__).parent / "passages").glob("*.txt"))]

TEXTS = [
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "What is the capital of France?",
    "  spaces   around\tand\nlines \r\n inside  ",
    "Ünïcödé with accents: café, naïve, Zürich, Ærøskøbing, İstanbul, STRASSE, straße",
    "Привет, как дела? Это предложение на русском языке.",
    "你好，世界。今天天气很好。",
    "こんにちは世界、カタカナとひらがな。",
    "안녕하세요 세계, 한국어 문장입니다.",
    "مرحبا بالعالم، هذا نص عربي.",
    "नमस्ते दुनिया, यह एक हिंदी वाक्य है।",
    "Emoji 🙂👩‍👩‍👧🏽 and symbols ∑ ½ ﬁ Ⅷ ™ €",
    "def f(x):\n    return x ** 2  # a comment",
    "1234567890 3.14159 1,000,000 0x1F",
    "zero\u200bwidth \u00a0no-break \ufeffmark \u00ad soft \u2028 line \u0000 null \u0007 bell",
    "e\u0301 combining, \u1e9b\u0323 and \ufb03 ligature",
    "words " * 60,
    " ".join(f"number{i}" for i in range(40)),
]
