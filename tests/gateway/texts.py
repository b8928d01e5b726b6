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
CITED = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: cited}
spec:
  inputs: {question: {type: string}}
  stages:
    found: {uses: "py:gateway_flows:look_up", with: {text: "${inputs.question}"}}
    said: {uses: generate, with: {prompt: "${inputs.question}", model: "fake:"}}
    cited: {uses: "py:gateway_flows:cite", with: {text: "${said}", passages: "${found}"}}
  outputs: {answer: "${cited}", sources: "${found}"}
"""
REMEMBERS = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: remembers}
spec:
  inputs:
    question: {type: string}
    history: {type: "list[Message]", default: []}
    mark: {type: string, default: ""}
  stages:
    only:
      uses: "py:gateway_flows:recall"
      with: {question: "${inputs.question}", history: "${inputs.history}", mark: "${inputs.mark}"}
  outputs: {result: "${only}"}
"""
LOOPED = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: looped}
spec:
  inputs: {question: {type: string}}
  stages:
    said: {uses: generate, each: {n: 2}, with: {prompt: "${inputs.question}", model: "fake:"}}
  outputs: {answers: "${said}"}
"""
#: Its replica is lost after two tokens.
SCRIPTED = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: breaks}
spec:
  inputs: {question: {type: string}}
  models:
    breaking: {source: "fake:", args: {crash_after: 3, interval_s: 0.05}}
  stages:
    answer: {uses: generate, with: {prompt: "${inputs.question}", model: breaking}}
  outputs: {answer: "${answer}"}
"""
