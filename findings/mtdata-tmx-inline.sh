#!/usr/bin/env bash
# mtdata 0.5.1 reads of a TMX segment only what stands before its first inline element, and of several regional variants
# of a language (`en-GB`, `en-US`) the last one.
#
# TMX 1.4 lets `ph`, `bpt`, `ept`, `hi` and others stand anywhere in a `seg`; the text after them is text of the segment.
# Seen: "Press <ph/>OK<ph/> to go on." becomes "Press", without a word; of two English variants the second is taken.
# Who is concerned: translation memories from CAT tools, whose segments are full of such elements.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check mtdata==0.5.1
cat > "$place/memory.tmx" <<'TMX'
<?xml version="1.0" encoding="UTF-8"?>
<tmx version="1.4">
  <header srclang="en" datatype="plaintext" segtype="sentence" adminlang="en" creationtool="hand" creationtoolversion="1"
    o-tmf="none"/>
  <body>
    <tu>
      <tuv xml:lang="en-GB"><seg>Press <ph x="1"/>OK<ph x="2"/> to go on.</seg></tuv>
      <tuv xml:lang="de-DE"><seg>Zum Fortfahren <hi>OK</hi> drücken.</seg></tuv>
    </tu>
    <tu>
      <tuv xml:lang="en-GB"><seg>The lift is out of order.</seg></tuv>
      <tuv xml:lang="en-US"><seg>The elevator is out of order.</seg></tuv>
      <tuv xml:lang="de-DE"><seg>Der Aufzug ist defekt.</seg></tuv>
    </tu>
  </body>
</tmx>
TMX
"$place/venv/bin/python" - "$place/memory.tmx" > "$place/seen" 2> "$place/log" <<'PYTHON'
import sys
from pathlib import Path

from mtdata.tmx import read_tmx

for english, german in read_tmx(Path(sys.argv[1]), langs=("en", "de")):
    print(f"{english} | {german}")
PYTHON
cat "$place/seen"
diff "$place/seen" - <<'EXPECTED'
Press | Zum Fortfahren
The elevator is out of order. | Der Aufzug ist defekt.
EXPECTED
