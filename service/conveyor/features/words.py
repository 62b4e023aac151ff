"""English words: one regular expression in the tradition of the Penn Treebank, as UD English-EWT 2.16 splits.

Clitics stand alone (`do|n't`, `it|'s`, `can|not`), so do hyphens and slashes between words (`long|-|term`), except
after a prefix that is no word (`anti-war`, `e-mail`). Addresses, numbers, dates, emoticons and runs of one
punctuation mark stay whole. HTML tags of formatting count as white space. Case never matters.

The time is linear in the length of the text, whatever it holds: a branch either consumes what it scans, scans a
bounded number of characters, or is possessive (`++`), so that nothing is scanned from the same place again and again.
Possessive are single characters only: of groups, Python before 3.11.5 forgets what stands inside. Nor need a group be
where what follows can't fail.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["stands_alone", "word_spans", "words"]

# Combining marks are no word characters to `re`, but belong to the letter before them.
_W: Final = r"[\w\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0\ufe20-\ufe2f]"
_APOSTROPHE: Final = "['’`´‘]"
_EMOJI: Final = r"[\u2600-\u27bf\u2b00-\u2bff\U0001f300-\U0001faff]"
_MODIFIER: Final = r"[\ufe0f\u20e3\U0001f3fb-\U0001f3ff]"

_HTML_TAG: Final = r"</?(?:br|hr|p|b|i|u|em|strong|small|big|div|span|ul|ol|li|h[1-6]|blockquote)\s{0,4}/?>"

_ABBREVIATIONS: Final = (
    "mr|mrs|ms|dr|prof|rev|gen|gov|lt|col|sgt|capt|sen|rep|sr|jr|inc|ltd|corp|co|vs|etc|ft|st|ave|blvd|dept"
    "|jan|feb|aug|sept|oct|nov|dec|approx|est|ext|fig"
)
# Verbs that take n't, which hasty writers write without its apostrophe.
_NEGATED: Final = "do|does|did|is|was|were|are|ai|ca|wo|could|would|should|have|has|had"
_PREFIXES: Final = (
    "e|non|anti|pre|post|mid|co|re|ex|pro|multi|semi|sub|neo|counter|inter|intra|ultra|pseudo|socio|psycho|bi|un|de"
)
_DOMAINS: Final = "com|org|net|edu|gov|mil|info|biz|co\\.uk|ca|de|doc|docx|xls|xlsx|pdf|txt|html?|jpe?g|gif|png|zip|exe"

_TOKEN: Final = re.compile(
    rf"""
    (?:\s++|{_HTML_TAG})*
    (
      # The most frequent cases first: letters and marks with nothing behind them that could join.
      (?!(?:cannot|gonna|wanna|gotta|gimme|lemme|(?:{_NEGATED})nt)\b)[^\W\d_]++(?![\w\u0300-\ufe2f'`´@.:/&-])
    | [,"“”%{{}}\[\])] | \((?![:;=]) | \.(?![\w.])
    | (?:https?|ftp):/(?=/)(?:[^\s<>"“”]*[\w/=&\#-])?
    | www(?=\.\w)[^\s<>"“”]*[\w/=&\#-]
    | \w[\w.+-]{{0,63}}+@\w[\w-]{{0,62}}+(?:\.\w[\w-]{{0,62}}+)*
    | (?:\w++[.-]){{1,6}}(?:{_DOMAINS})(?![\w@-])(?:/[^\s<>"“”]*[\w/=])?
    | (?:[a-z]\.){{2,8}}(?:[a-z](?!\w))?
    | (?:{_ABBREVIATIONS})\.(?!\w)
    | [b-hj-z]\.(?=\s\S)
    | \d{{1,4}}/\d{{1,2}}(?:/\d{{2,4}})?(?![\w/])
    | (?:\d{{1,3}}-)?\d{{3}}[-/]\d{{3}}-\d{{4}}(?!\w) | \d{{3}}-\d{{4}}(?!\w)
    | \d{{1,2}}:\d\d(?::\d\d)?(?!\d)
    | \d++(?:[.,]\d++)*(?:(?:st|nd|rd|th|s|{_APOSTROPHE}s)(?!\w))?
    | [.]\d++(?!\w)
    | {_APOSTROPHE}\d\ds?(?!\w)
    # Clitics, and the words before them.
    | can(?=not(?!\w)) | (?:gon|wan)(?=na(?!\w)) | got(?=ta(?!\w)) | (?:gim|lem)(?=me(?!\w))
    | (?:{_NEGATED})(?=nt(?!\w))
    | [^\W\d_]+?(?=n{_APOSTROPHE}t(?!\w)) | n{_APOSTROPHE}t(?!\w)
    | {_APOSTROPHE}(?:s|m|d|re|ve|ll|em|n|til|cause|tis|twas)(?!\w)
    | (?:{_PREFIXES})-[^\W\d_]++(?!{_APOSTROPHE})
    | [^\W\d_]{{1,4}}+&[^\W\d_]{{1,3}}+(?!\w)
    | __++
    | {_W}++(?:{_APOSTROPHE}(?!(?:s|m|d|re|ve|ll)(?!\w)){_W}++)*
    # What is no word.
    | -(?:lrb|rrb|lsb|rsb|lcb|rcb)- | \\[/*]
    | >?[:;=]['^-]?[)(\][dp/\\|*](?!\w) | \([:;=] | <3(?!\w) | <-- | -+>
    | \.\.++ | …++ | [!?][!?]++ | --++ | ==++ | \*\*++ | ~~++ | \+\++ | \#\#++ | \$\$++ | << | >> | `` | ’’ | ‘’ | ''
    | [\U0001f1e6-\U0001f1ff]{{2}} | {_EMOJI}{_MODIFIER}*+(?:\u200d{_EMOJI}{_MODIFIER}*+)*
    | \S
    | \Z  # so that trailing white space is consumed once
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)


def stands_alone(piece: str) -> bool:
    """Whether a piece between white space has the same words whatever stands around it.

    All but two kinds do: a tag may hold white space (`<br />`), and an initial (`J. Smith`) keeps its point only if
    something follows. One may stand right behind letters too, where an address is so long that it ends among them.
    """
    if "<" in piece:
        return False
    if piece[-1:] != "." or not piece[-2:-1].isalpha():
        return True
    return piece[-3:-2].isalpha() and "@" not in piece


def words(text: str) -> list[str]:
    """The words of an English text, in order: what stands at `word_spans`, found in half the time."""
    found = _TOKEN.findall(text)
    while found and not found[-1]:
        found.pop()
    return found


def word_spans(text: str) -> list[tuple[int, int]]:
    """Finds the words of an English text: code points into the text, half open, in order, without overlap.

    Every code point that is neither white space nor part of an HTML tag is in exactly one of them.
    """
    spans = [match.span(1) for match in _TOKEN.finditer(text)]
    while spans and spans[-1][0] == spans[-1][1]:
        spans.pop()
    return spans
