"""A page on which people answer in a browser: `server` runs it, `app` speaks HTTP, `desk` stands between page and queue.

Starlette and uvicorn, which `pip install 'activedpo-cli[web]'` brings, are imported when the page is asked for.
"""
