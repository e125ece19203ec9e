"""The page at `/`: says what is where. It shows no figure, so it needs no token and a browser can open it."""

from __future__ import annotations

from html import escape

from aiohttp import web

PLACES = (
    ("/healthz", "whether this process is alive", False),
    ("/readyz", "whether store, ledger and policy can be used, and what cannot", False),
    ("/metrics", "figures for Prometheus", True),
    ("/api/calls", "calls, oldest first: ?since=1h&user=&team=&task=&model=&result=&limit=&cursor=", True),
    ("/api/report", "what calls came to: ?by=task,model&since=30d&until=&timezone=", True),
    ("/api/export/focus", "FOCUS 1.2 as CSV: ?since=30d&until=&timezone=&with_users=", True),
    ("/api/twins", "tasks that are the same work: ?since=7d&until=", True),
    ("/api/reconcile", "what the ledger has of one provider: ?provider=&since=&until=", True),
    ("/api/budgets", "what budgets allow, and what is spent and held of them; /api/budgets/raises for raises", True),
    ("/api/explain", "the rules that apply: ?call_id= or ?user=&team=&task=&model=&upstream=", True),
    ("/api/tasks/<task>", "what one task cost", True),
    ("/api/outcomes", "what tasks came to, the latest first: ?task=&state=&since=", True),
    ("/webhooks/<rule>", "deliveries of GitHub, GitLab or Standard Webhooks for a rule of `outcomes`, signed", False),
    ("/api/forget", "POST user or calls_before: deletes a person's data, or old calls, step by step", True),
    ("/api/keys", "keys and what they stand for", True),
    ("/api/policy", "the policy in force, and faults of one that is not", True),
)
COMMANDS = ("callmeter calls --since 1h", "callmeter report --by task", "callmeter keys create --user NAME")

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem}"
    "td{padding:.2rem 1rem .2rem 0;vertical-align:top}code{background:#8882;padding:.1rem .3rem}"
    ":root{color-scheme:light dark}"
)
_HEADERS = {
    # Nothing is loaded and nothing runs: the page stays plain whatever is injected into it.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def front_page() -> str:
    places = "".join(
        f"<tr><td><code>{escape(path)}</code></td><td>{escape(what)}{' (admin token)' if token else ''}</td></tr>"
        for path, what, token in PLACES
    )
    commands = "".join(f"<li><code>{escape(command)}</code></li>" for command in COMMANDS)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Callmeter</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        "<h1>Callmeter</h1><p>The admin port of a metering proxy for AI agents. Agents use the data port, not this one."
        f"</p><h2>Here</h2><table>{places}</table>"
        "<p>The admin token goes into <code>Authorization: Bearer</code>; it is CALLMETER_ADMIN_TOKEN, or the file "
        "<code>admin.token</code> in the data directory.</p>"
        f"<h2>On the command line</h2><ul>{commands}</ul></body></html>"
    )


async def front(_request: web.Request) -> web.Response:
    return web.Response(text=front_page(), content_type="text/html", headers=_HEADERS)
