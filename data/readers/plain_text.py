"""Text as publishers have it → plain text: HTML unescaped and removed, lists as single texts."""

import html
import re

MARKUP = re.compile(r"</?[a-zA-Z][^<>]*>|\s*/>")
"""A pattern of HTML tags, and of what is left of a cut one."""

HIDDEN = re.compile(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->")
"""A pattern of the parts of a page that are no text."""


def strip_markup(text: str) -> str:
    """Strip HTML: character references become characters, tags, comments and scripts vanish, blanks become one."""
    return " ".join(MARKUP.sub(" ", HIDDEN.sub(" ", html.unescape(mend_surrogates(text)))).split())


def mend_surrogates(text: str) -> str:
    """Join the halves of characters that JSON and Python 2 write as two, and replace a half alone: it is no text."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain_texts(value: object) -> list[str]:
    """Collect the plain texts in a value: text, a number, or lists of them, in lists; other values have none."""
    if isinstance(value, list | tuple):
        return [text for each in value for text in plain_texts(each)]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return []
    plain = strip_markup(str(value))
    return [plain] if plain else []
