// The request that the page makes, as others would write it. The key is never part of it.

const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function curl({ url, body, authorized }) {
  const lines = [
    `curl -N ${quote(url)}`,
    authorized && `-H "Authorization: Bearer $ADJOIN_API_KEY"`,
    "-H 'Accept: text/event-stream'",
    "-H 'Content-Type: application/json'",
    `--data-raw ${quote(body)}`,
  ];
  return lines.filter(Boolean).join(" \\\n  ");
}

export function python({ url, body, authorized }) {
  const inputs = literal(JSON.parse(body), "    ");
  const authorization = `        "Authorization": "Bearer " + os.environ["ADJOIN_API_KEY"],\n`;
  return `import json
${authorized ? "import os\n" : ""}import urllib.request

request = urllib.request.Request(
    ${JSON.stringify(url)},
    data=json.dumps(${inputs}).encode(),
    headers={
${authorized ? authorization : ""}        "Accept": "text/event-stream",
        "Content-Type": "application/json",
    },
)
with urllib.request.urlopen(request) as answer:
    for line in answer:
        if line.startswith(b"data: "):
            print(json.loads(line[6:])["body"])
`;
}

/** JSON data as a Python expression; the escapes of JSON strings are Python's too. */
function literal(value, indent) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const [open, close, items] = Array.isArray(value)
    ? ["[", "]", value.map((item) => literal(item, inner))]
    : ["{", "}", Object.entries(value).map(
        ([name, item]) => `${JSON.stringify(name)}: ${literal(item, inner)}`)];
  if (!items.length) return open + close;
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}
