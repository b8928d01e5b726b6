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
#: For the page: every kind of field, stages one after the other, an answer with its sources.
ASK = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: ask, description: "Answers from what is known about animals."}
spec:
  inputs:
    question: {type: string, minLength: 2, maxLength: 400, description: "What to find out"}
    k: {type: integer, default: 2, minimum: 1, maximum: 4}
    tone: {type: string, default: plain, enum: [plain, formal]}
    loud: {type: boolean, default: false}
    notes: {type: "list[string]", default: ["one"]}
    seed: {type: "integer | null", default: null}
  models:
    speaker:
      source: "fake:"
      args: {answer: "The cat of the house sleeps all day long.", interval_s: 0.05}
  stages:
    vector: {uses: embed, with: {texts: "${inputs.question}", model: "fake:"}}
    passages: {uses: retrieve, with: {vector: "${vector}", collection: animals, k: "${inputs.k}"}}
    answer: {uses: generate, with: {prompt: "${passages[0].text}", model: speaker}}
  outputs:
    answer: "${answer}"
    sources: "${passages}"
    given: {k: "${inputs.k}", tone: "${inputs.tone}", loud: "${inputs.loud}"}
    notes: "${inputs.notes}"
"""
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
#: Its replica is nobody else's.
FIGURED = """
apiVersion: adjoin/v1
kind: Workflow
metadata: {name: figured}
spec:
  inputs: {text: {type: string}}
  models: {figured: {source: "fake:", args: {words: 9, dimension: 7}}}
  stages:
    say: {uses: generate, with: {prompt: "${inputs.text}", model: figured}}
  outputs: {said: "${say}"}
"""
