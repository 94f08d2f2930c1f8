"""The product page as HTML: one self-contained document, every value escaped. No I/O; the answers come from `productpage`."""

from html import escape

from .pod import Pod

_INK = {"black": "#1c1b1a", "red": "#d22b2b"}
_VERSIONS = {"v1": "no stars", "v2": "black stars", "v3": "red stars"}
_FACTS = ("author", "publisher", "year", "pages", "language", "binding")

_STYLE = """
:root{--paper:#f6f3ee;--card:#fff;--ink:#1c1b1a;--soft:#6d675f;--line:#e4ded4;--accent:#3d5a80}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 Georgia,"Times New Roman",serif}
header{background:radial-gradient(circle at 1px 1px,#ffffff2b 1px,#0000 1.4px) 0 0/9px 9px,var(--accent);color:#fff;padding:2.2rem 1rem}
.wrap{max-width:60rem;margin:0 auto;padding:0 1rem}header h1{margin:0;font-size:2.3rem;letter-spacing:.01em}
header p{margin:.2rem 0 0;opacity:.85;font-style:italic}main{display:grid;grid-template-columns:1fr 1.5fr;gap:1.2rem;margin:1.4rem auto}
@media(max-width:46rem){main{grid-template-columns:1fr}}section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1.2rem 1.4rem}
h2{margin:0 0 .8rem;font-size:1.15rem}dl{display:grid;grid-template-columns:auto 1fr;gap:.25rem 1rem;margin:1rem 0 0}dt{color:var(--soft)}dd{margin:0}
blockquote{margin:0 0 1.1rem;padding:0 0 0 1rem;border-left:3px solid var(--line)}blockquote p{margin:0}cite{color:var(--soft);font-size:.92rem}
.stars{font-size:1.35rem;letter-spacing:.12em;line-height:1.2}.by,.bar,footer{font:13px/1.5 ui-sans-serif,system-ui,sans-serif;color:var(--soft)}
.by{border-top:1px solid var(--line);margin:1rem 0 0;padding-top:.6rem}.by b{color:var(--ink)}code{font:12px ui-monospace,monospace;background:var(--paper);padding:.1em .35em;border-radius:4px}
.tag{display:inline-block;padding:.05em .6em;border-radius:1em;color:#fff;font-weight:600}.error{background:#fdecea;border:1px solid #f2b8b3;border-radius:6px;padding:.6rem .8rem;font:14px ui-sans-serif,system-ui,sans-serif}
.bar{display:flex;flex-wrap:wrap;gap:.6rem 1.2rem;align-items:center;margin-top:1.2rem}.bar form{margin-left:auto;display:flex;gap:.4rem}input,button{font:inherit;padding:.25rem .6rem;border:1px solid var(--line);border-radius:6px;background:#fff}button{cursor:pointer}
#strip{display:flex;flex-wrap:wrap;gap:4px;min-height:14px}#strip i{width:12px;height:12px;border-radius:50%;border:1px solid #0003}footer{margin:0 auto 2rem}
"""

_SCRIPT = """
const ink={v1:'#d9d4cb',v2:'#1c1b1a',v3:'#d22b2b'},strip=document.getElementById('strip'),live=document.getElementById('live');
let watching=null;
async function look(){let v='';try{const r=await fetch('/api/v1/products/0');v=r.headers.get('x-reviews-version')||''}catch(e){}
 const d=document.createElement('i');d.style.background=ink[v]||'#f5b301';d.title=v?'reviews '+v:'failed';strip.append(d);while(strip.children.length>60)strip.firstChild.remove()}
document.getElementById('watch').onclick=e=>{if(watching){clearInterval(watching);watching=null;e.target.textContent='Watch who answers'}
 else{watching=setInterval(look,400);e.target.textContent='Stop'}};
let pause=500;(function join(){const s=new WebSocket(location.protocol.replace('http','ws')+'//'+location.host+'/live');
 s.onmessage=m=>{pause=500;const t=JSON.parse(m.data);if(t.tick)live.textContent='live: '+t.served+' ratings given by '+t.pod};
 s.onclose=()=>{live.textContent='live: not connected';setTimeout(join,pause);pause=Math.min(pause*2,8000)}})();
"""


def render(
    *, pod: Pod, user: str, details: dict[str, object], reviews: dict[str, object], errors: dict[str, str]
) -> str:
    """The whole page; a neighbour with an error gets a box that says so in place of its document."""
    title = escape(str(details.get("title", "Bookinfo")))
    subtitle = escape(str(details.get("subtitle", "")))
    left = _problem("details", errors["details"]) if errors["details"] else _book(details)
    right = _problem("reviews", errors["reviews"]) if errors["reviews"] else _reviews(reviews)
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{_STYLE}</style></head><body>
<header><div class="wrap"><h1>{title}</h1><p>{subtitle}</p></div></header>
<div class="wrap"><div class="bar"><button id="watch">Watch who answers</button><div id="strip"></div>{_sign_in(user)}</div></div>
<main class="wrap"><section>{left}</section><section>{right}</section></main>
<footer class="wrap"><span id="live">live: …</span> · page by <code>{escape(pod.name)}</code></footer>
<script>{_SCRIPT}</script></body></html>
"""


def _sign_in(user: str) -> str:
    if user:
        return (
            f'<form method="post" action="/logout">signed in as <b>{escape(user)}</b> <button>Sign out</button></form>'
        )
    return (
        '<form method="post" action="/login"><input name="user" placeholder="jason" aria-label="user" maxlength="32">'
        "<button>Sign in</button></form>"
    )


def _problem(service: str, error: str) -> str:
    return f'<h2>{service}</h2><p class="error"><b>{service}</b> did not answer: {escape(error)}</p>'


def _book(details: dict[str, object]) -> str:
    facts = "".join(f"<dt>{name}</dt><dd>{escape(str(details[name]))}</dd>" for name in _FACTS if name in details)
    by = _by("details", details)
    return f"<h2>The book</h2><p>{escape(str(details.get('about', '')))}</p><dl>{facts}</dl>{by}"


def _reviews(document: dict[str, object]) -> str:
    listed = document.get("reviews", [])
    quotes = (
        "".join(_quote(review) for review in listed if isinstance(review, dict)) if isinstance(listed, list) else ""
    )
    ratings = document.get("ratings", {})
    trouble = ""
    if isinstance(ratings, dict) and "error" in ratings:
        trouble = f'<p class="error"><b>ratings</b> gave no stars: {escape(str(ratings["error"]))}</p>'
    by = _by("reviews", document)
    if isinstance(ratings, dict) and "pod" in ratings:
        by += _by("ratings", ratings)
    return f"<h2>What readers say</h2>{quotes}{trouble}{by}"


def _quote(review: dict[str, object]) -> str:
    rating, stars = review.get("rating"), ""
    if isinstance(rating, dict):
        count = min(5, max(0, int(rating.get("stars", 0))))
        ink = _INK.get(str(rating.get("colour")), "#1c1b1a")
        shape = "★" * count + "☆" * (5 - count)
        stars = f'<div class="stars" style="color:{ink}" aria-label="{count} of 5 stars">{shape}</div>'
    text, reviewer = escape(str(review.get("text", ""))), escape(str(review.get("reviewer", "")))
    return f"<blockquote>{stars}<p>“{text}”</p><cite>{reviewer}</cite></blockquote>"


def _by(service: str, document: dict[str, object]) -> str:
    version = str(document.get("version", "?"))
    look = _VERSIONS.get(version) if service == "reviews" else None
    colour = {"v2": _INK["black"], "v3": _INK["red"]}.get(version, "#9a9287") if look else "#3d5a80"
    note = f" ({look})" if look else ""
    tag = f'<span class="tag" style="background:{colour}">{escape(version)}</span>'
    return (
        f'<p class="by"><b>{service}</b> {tag}{note} from pod <code>{escape(str(document.get("pod", "?")))}</code></p>'
    )
