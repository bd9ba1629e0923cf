"""The look of the HTML pages: light and dark by the reader's preference, black on white in print."""

CSS = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #5b5f67; --paper: #fcfcfd; --line: #d9dce2;
  --card: #ffffff; --good: #136c3f; --bad: #b3261e; --curve: #1d5fb8; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --dim: #a9aeb8; --paper: #15171a; --line: #363a41;
  --card: #1c1f23; --good: #57d19a; --bad: #ff8a80; --curve: #7fb3f7; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
header p { margin: 0; }
h1 { font-size: 1.4rem; line-height: 1.3; margin: .25rem 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .5rem; border-top: 1px solid var(--line); padding-top: .75rem; }
.dim { color: var(--dim); }
.verdict { border-left: 4px solid var(--bad); background: var(--card); padding: .75rem 1rem; overflow-wrap: anywhere; }
.verdict.fine { border-color: var(--good); }
.proof { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .5rem; margin: 1rem 0; }
.proof div { border: 1px solid var(--line); border-radius: 4px; padding: .5rem .75rem; background: var(--card); }
.proof dt { color: var(--dim); font-size: .85rem; } .proof dd { margin: 0; }
.proof dd .dim { display: block; font-size: .85rem; }
.wide { overflow-x: auto; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); gap: .5rem 1.5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { color: var(--dim); font-weight: 600; white-space: nowrap; overflow-wrap: normal; }
.rows td:first-child, .good, .bad, .skip { white-space: nowrap; overflow-wrap: normal; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.skip { color: var(--dim); }
code, pre { font: .85rem/1.5 ui-monospace, monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card);
  border: 1px solid var(--line); padding: .75rem; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--dim); overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; margin: .5rem 0; font: 13px system-ui, sans-serif; }
svg text { fill: var(--dim); } svg .title { fill: var(--ink); font-weight: 600; }
svg .grid { stroke: var(--line); } svg .curve { fill: none; stroke: var(--curve); stroke-width: 1.8; }
svg .point { fill: var(--curve); } svg path.bad { stroke: var(--bad); stroke-width: 2; fill: none; }
svg line.mark { stroke: var(--bad); stroke-dasharray: 3 3; } svg text.mark { fill: var(--bad); paint-order: stroke;
  stroke: var(--paper); stroke-width: 4px; }
svg [class^="heat"] { fill: var(--curve); } svg .heat0 { fill-opacity: .12; } svg .heat1 { fill-opacity: .34; }
svg .heat2 { fill-opacity: .56; } svg .heat3 { fill-opacity: .78; }
svg .broken { fill: var(--card); stroke: var(--bad); } svg .ring { fill: none; stroke: var(--ink); stroke-width: 2; }
svg .trace { fill: none; stroke: var(--curve); stroke-width: .8; }
svg .blamed { stroke: var(--bad); stroke-width: 1.4; }
svg rect.span { fill: var(--bad); fill-opacity: .1; stroke: var(--bad); stroke-dasharray: 5 3; }
svg .lost { stroke: var(--bad); stroke-width: 2; }
svg .outline { fill: none; stroke: var(--line); stroke-width: 2; } svg .edge { stroke: var(--curve); }
svg .node { fill: var(--card); stroke: var(--ink); } svg .marked { stroke: var(--bad); stroke-width: 2.5; }
svg .name { fill: var(--ink); font-size: 11px; } svg.head { max-width: 26rem; }
@media screen and (max-width: 44rem) { svg.wide { min-width: 40rem; } h1 { font-size: 1.2rem; }
  .rows thead { display: none; } .rows, .rows tbody, .rows tr, .rows td { display: block; }
  .rows tr { border-bottom: 1px solid var(--line); padding: .4rem 0; } .rows td { border: 0; padding: 0; }
  .rows td:first-child { white-space: normal; overflow-wrap: anywhere; font-weight: 600; }
  .rows td:empty { display: none; }
  .rows td + td[data-head]::before { content: attr(data-head) ": "; color: var(--dim); } }
@media print { :root { color-scheme: light; --ink: #000; --dim: #333; --paper: #fff; --card: #fff; --line: #aaa;
  --good: #0b5c33; --bad: #a3160f; --curve: #10458c; }
  @page { margin: 14mm; } html { font-size: 10px; } body { max-width: none; padding: 0; font-size: 1rem; }
  svg { break-inside: avoid; print-color-adjust: exact; } tr, .proof, .verdict { break-inside: avoid; }
  h2 { break-after: avoid; } .wide { overflow: visible; } details::details-content { content-visibility: visible;
  block-size: auto; } details.old::details-content { display: none; } .figures { grid-template-columns: 1fr 1fr; } }
"""
