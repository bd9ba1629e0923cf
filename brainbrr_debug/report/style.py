"""The look of the HTML report: light and dark by the reader's preference, black on white in print."""

CSS = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #60646c; --paper: #fcfcfd; --line: #d9dce2;
  --card: #ffffff; --good: #1a7f4b; --bad: #c62a2f; --curve: #2563b8; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --dim: #a3a8b3; --paper: #15171a; --line: #363a41;
  --card: #1c1f23; --good: #4cc38a; --bad: #ff7b7f; --curve: #78aef5; } }
@media print { :root { --ink: #000; --dim: #444; --paper: #fff; --card: #fff; --line: #aaa; }
  details:not([open]) { display: none; } section { break-inside: avoid; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p.dim, .dim { color: var(--dim); }
.verdict { border-left: 4px solid var(--bad); background: var(--card); padding: .75rem 1rem; font-size: 1.05rem;
  overflow-wrap: anywhere; }
.verdict.fine { border-color: var(--good); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { color: var(--dim); font-weight: 600; white-space: nowrap; }
.rows td:first-child { white-space: nowrap; overflow-wrap: normal; }
@media (max-width: 44rem) { .rows { min-width: 38rem; } }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.skip { color: var(--dim); }
code, pre { font: .85rem/1.5 ui-monospace, monospace; } pre { overflow-x: auto; background: var(--card);
  border: 1px solid var(--line); padding: .75rem; }
svg { display: block; width: 100%; height: auto; margin: .5rem 0; font: 12px system-ui, sans-serif; }
svg text { fill: var(--dim); } svg .title { fill: var(--ink); font-weight: 600; }
svg .grid { stroke: var(--line); } svg .curve { fill: none; stroke: var(--curve); stroke-width: 1.8; }
svg .point { fill: var(--curve); } svg .bad { stroke: var(--bad); stroke-width: 2; fill: none; }
svg line.mark { stroke: var(--bad); stroke-dasharray: 3 3; } svg text.mark { fill: var(--bad); }
summary { cursor: pointer; color: var(--dim); margin: .5rem 0; }
"""
