"""The pages' style and script. The policy allows exactly these, by their hashes."""

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;--ink:#1d2129;--dim:#5f6876;--back:#fff;--card:#f5f6f8;--edge:#dfe2e8;--link:#0b5fcc;\
--line:#3b76d0;--fill:#3b76d026;--warn:#96600a;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e3e6eb;--dim:#9aa4b2;--back:#14171c;--card:#1d2128;--edge:#333a45;\
--link:#7db0ff;--line:#7db0ff;--fill:#7db0ff26;--warn:#f0b44c;--bad:#ff8a80}}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--back);margin:0 auto;padding:.8em 1.2em 3em;\
max-width:84em}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
header{display:flex;flex-wrap:wrap;gap:.1em 1.2em;align-items:baseline}
h1{font-size:1.2em;margin:0}
h2{font-size:1em;margin:1.5em 0 .4em}
p{margin:.4em 0}
nav{display:flex;gap:1em;flex-wrap:wrap}
nav a[aria-current]{color:var(--ink);font-weight:600}
.dim,small{color:var(--dim)}
small{font-size:.87em}
.warn{color:var(--warn)}
.bad{color:var(--bad)}
.bad b,.warn b{font-weight:700}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.35em 1.2em .35em 0;border-bottom:1px solid var(--edge)}
th{color:var(--dim);font-weight:500;font-size:.87em}
td{overflow-wrap:anywhere}
.list td+td:not(.n){min-width:6.2em}
td:last-child,th:last-child{padding-right:0}
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
code,pre{font:13px/1.5 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{margin:.3em 0;padding:.6em .8em;background:var(--card);border-radius:6px;white-space:pre-wrap;\
overflow-wrap:anywhere}
pre b{color:var(--ink);font-weight:700}
pre i{font-style:normal;color:var(--dim)}
summary{cursor:pointer}
details[open]>summary{margin-bottom:.2em}
.alarm{border-left:4px solid var(--bad);background:var(--card);padding:.5em .9em;margin:.7em 0;\
border-radius:0 6px 6px 0}
.rates{width:auto;margin-top:.5em}
.rates td{vertical-align:middle;white-space:nowrap}
.rates b{display:inline-block;min-width:4.2em;font-size:1.15em;font-variant-numeric:tabular-nums}
.rates svg{width:9em;height:1.7em;vertical-align:middle}
polyline{fill:none;stroke:var(--line);stroke-width:1.5;vector-effect:non-scaling-stroke}
polygon{fill:var(--fill)}
.flame{display:block;width:100%;margin:.7em 0}
.flame text{font:12px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#1d2129}
.flame rect{stroke:var(--back);stroke-width:1}
.flame rect.own{fill:#f5a05a}
.flame rect.lib{fill:#f2d09a}
.flame rect.none{fill:#b9c0cb}
.flame rect.past{fill:var(--card)}
.flame text.past{fill:var(--dim)}
.flame a:hover rect,.flame a:focus-visible rect{stroke:var(--link);stroke-width:3}
.flame a:focus{outline:none}
.flame a:hover{text-decoration:none}
.chips{display:flex;flex-wrap:wrap;gap:.2em 1.2em}
.chips [aria-current]{color:var(--ink);font-weight:600}
ul{padding-left:1.2em;margin:.3em 0}
li{overflow-wrap:anywhere}
.tree ul{list-style:none;padding-left:1.1em;margin:0;border-left:1px solid var(--edge)}
.tree>ul{padding-left:0;border:0}
.tree>ul>li{margin-top:.35em}
@media(max-width:700px){
body{padding:.6em .8em 2em}
.rates,.rates tbody{width:100%}
.rates th,.rates td{padding-right:.5em}
.rates b{display:block}
.rates svg{width:100%;max-width:8em;height:1.3em}
.flame .s{display:none}
.list tr:first-child{display:none}
.list,.list tbody,.list tr{display:block}
.list tr{border-bottom:1px solid var(--edge);padding:.45em 0}
.list td,.list td+td:not(.n){border:0;padding:0 .9em 0 0;display:inline-block;min-width:0;max-width:100%}
.list td:first-child{display:block;padding:0}
.list td:empty,.list td+td:empty:not(.n){display:none}
.list td[data-name]::before{content:attr(data-name) " ";color:var(--dim);font-size:.87em}
}
""".strip()

SCRIPT = """
"use strict";
(() => {
  const state = document.getElementById("state");
  let asking = false, at = Date.now();
  const key = (element) => element && element.closest && element.closest("[data-key]")?.dataset.key;
  async function refresh() {
    const selection = getSelection();
    if (asking || document.hidden || (selection && !selection.isCollapsed)) return;
    asking = true;
    const limit = new AbortController(), timer = setTimeout(() => limit.abort(), 15000);
    try {
      const answer = await fetch(location.href, {headers: {Accept: "text/html"}, signal: limit.signal});
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
      const main = document.querySelector("main"), focused = key(document.activeElement);
      const open = new Set([...main.querySelectorAll("details[open]")].map((d) => d.dataset.key));
      for (const d of fresh.querySelectorAll("details")) if (open.has(d.dataset.key)) d.open = true;
      main.replaceWith(fresh);
      if (focused) for (const d of fresh.querySelectorAll("details"))
        if (d.dataset.key === focused) d.querySelector("summary").focus();
      at = Date.now();
      state.textContent = "live, every 2 s";
      state.className = "dim";
    } catch {
      state.textContent = `no answer for ${Math.round((Date.now() - at) / 1000)} s`;
      state.className = "bad";
    } finally {
      clearTimeout(timer);
      asking = false;
    }
  }
  state.textContent = "live, every 2 s";
  setInterval(refresh, 2000);
})();
""".strip()


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_REST = "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
POLICY = ("Content-Security-Policy", f"default-src 'none'; style-src {_source(STYLE)}; {_REST}")
LIVE_POLICY = (
    "Content-Security-Policy",
    f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; connect-src 'self'; {_REST}",
)
"""Of a page that refreshes itself."""
