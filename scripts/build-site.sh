#!/usr/bin/env bash
# The pages as a website, by mdBook: target/site/index.html. Fails if a link in it leads nowhere.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# What pages link to outside of docs/; tests/pages.rs sees to it that nothing is missing.
beside=(README.md CHANGELOG.md SECURITY.md LICENSE-MIT LICENSE-APACHE compose.yaml
  examples/read-your-own-write/node.mjs examples/read-your-own-write/python.py
  examples/read-your-own-write/go/main.go examples/to-the-edge/edge.mjs examples/events/receiver.mjs
  examples/events/receiver.py examples/node/todos.mjs examples/web/app.js deploy/grafana/pgflume.json deploy/kubernetes/deployment.yaml
  deploy/prometheus/alerts.yml deploy/systemd/pgflume.service)
pages=target/site-src
site=target/site

mdbook=$(scripts/install-parts.sh site)
rm -rf "$pages" "$site"
mkdir -p "$pages"
cp -r --parents docs "${beside[@]}" "$pages"
# It lies in docs/, where its links work too, and mdBook wants it at the top.
sed -E 's#\]\(#](docs/#; s#\(docs/\.\./#(#' docs/SUMMARY.md >"$pages/SUMMARY.md"
rm "$pages/docs/SUMMARY.md"
"$mdbook" build

python3 - "$site" <<'PYTHON'
import html.parser, pathlib, sys, urllib.parse

class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text())
    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id": self.ids.add(value)
            if name in ("href", "src") and value: self.links.append(value)

site = pathlib.Path(sys.argv[1]).resolve()
pages = {path: Page(path) for path in site.rglob("*.html")}
links, broken = 0, []
for path, page in pages.items():
    if path.name == "404.html": continue  # is served for any path: its links are absolute
    for link in page.links:
        to = urllib.parse.urlsplit(link)
        if to.scheme or to.netloc: continue
        links += 1
        target = (path.parent / urllib.parse.unquote(to.path)).resolve() if to.path else path
        if not target.is_file(): broken.append(f"{path.relative_to(site)}: {link}: no such file")
        elif to.fragment and target in pages and urllib.parse.unquote(to.fragment) not in pages[target].ids:
            broken.append(f"{path.relative_to(site)}: {link}: no such heading")
print(*broken, f"build-site: {len(pages)} pages, {links} links, {len(broken)} broken", sep="\n", file=sys.stderr)
sys.exit(bool(broken))
PYTHON
echo "build-site: $site/index.html" >&2
