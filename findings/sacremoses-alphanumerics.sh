#!/usr/bin/env bash
# sacremoses 0.2.0 does not cut Japanese as the rule that it ports: Moses' tokenizer puts a space around every character
# that Perl does not count as alphanumeric (`[^\p{IsAlnum}\s\.\'\`\,\-]`), while sacremoses reads the alphanumerics from a
# list of its own.
#
# Seen: that list has 10,656 characters and no Han ideograph, so that under a language without a list of its own ("en")
# every ideograph becomes a token ("本" below), which Perl keeps within its word; under "ja" the ideographic full stop,
# which Perl cuts off, stays inside the token, in the middle of the text and at its end.
# Who is concerned: text that was tokenised by Moses' script and is met again through sacremoses, in either direction.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check sacremoses==0.2.0
cat > "$place/cut.py" <<'PYTHON'
from sacremoses import MosesTokenizer
from sacremoses.corpus import Perluniprops

alphanumerics = set("".join(Perluniprops().chars("IsAlnum")))
print(len(alphanumerics), "本" in alphanumerics)
text = "これは本です。それはペンです。"
for language in ("en", "ja"):
    print(language, " ".join(MosesTokenizer(language).tokenize(text, escape=False)))
PYTHON
"$place/venv/bin/python" "$place/cut.py" > "$place/seen"
perl -CSD -Mutf8 -e '
    my $text = " これは本です。それはペンです。 ";
    $text =~ s/([^\p{IsAlnum}\s\.\x{27}\x{60}\,\-])/ $1 /g;
    $text =~ s/ +/ /g; $text =~ s/^ | $//g;
    print "perl $text\n"' >> "$place/seen"
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
10656 False
en これは 本 です 。 それはペンです 。
ja これは本です。それはペンです。
perl これは本です 。 それはペンです 。
EXPECTED
