"""Texts of workflows to deploy."""

from __future__ import annotations


def text(name: str, function: str = "shout", argument: str = "text", serve: str = "") -> str:
    """One stage, of a function in ``gateway_flows``."""
    return f"""
apiVersion: adjoin/v1
kind: Workflow
metadata: {{name: {name}}}
spec:
  inputs: {{{argument}: {{type: string}}}}
  stages:
    only: {{uses: "py:gateway_flows:{function}", with: {{{argument}: "${{inputs.{argument}}}"}}}}
  outputs: {{result: "${{only}}"}}
{serve and f"  serve: {{{serve}}}"}
"""


SEARCH = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: search}
spec:
  inputs: {question: {type: string}}
  stages:
    vector: {uses: embed, with: {texts: "${inputs.question}", model: "fake:"}}
    found: {uses: retrieve, with: {vector: "${vector}", collection: animals, k: 2}}
  outputs: {found: "${found}"}
"""
ENDLESS = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: endless}
spec:
  inputs: {question: {type: string}}
  models:
    slow: {source: "fake:", args: {words: 100000, interval_s: 0.01}}
  stages:
    answer: {uses: generate, with: {prompt: "${inputs.question}", model: slow, max_tokens: 8000}}
  outputs: {answer: "${answer}"}
"""
FROM_FILE = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: from_file}
spec:
  stages:
    only: {uses: prompt, with: {template: {file: secret.md}}}
  outputs: {prompt: "${only}"}
"""
#: Tokens faster than a reader who does not read can be given them.
FLOOD = ENDLESS.replace("endless", "flood").replace("interval_s: 0.01", "interval_s: 0.001")
