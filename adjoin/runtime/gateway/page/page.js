// The page: what is deployed, a form for each workflow, and its runs.

import { Problem, key, request } from "./api.js";
import { curl, python } from "./code.js";
import { el } from "./dom.js";
import { Fields } from "./form.js";
import { Run } from "./run.js";
import { problem } from "./values.js";

const byId = (id) => document.getElementById(id);
const view = byId("view");
let running = null;
let visit = 0;

/** Show something that talks to the service; a key that is not valid asks for one. */
async function attempt(work) {
  const mine = ++visit; // a slow answer does not replace what was asked for after it
  running?.leave();
  try {
    await work(() => mine === visit);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (mine !== visit) return;
    byId("forget").hidden = key.get() === "";
    if (error.details.status === 401) askForKey(error);
    else view.replaceChildren(problem(error));
  }
}

function askForKey(error) {
  const wrong = key.get() !== "";
  key.forget();
  byId("key-why").textContent = wrong ? `The service says: ${error.details.detail}.` : "This service asks for one.";
  byId("key-why").toggleAttribute("data-wrong", wrong);
  byId("key").hidden = false;
  byId("workflows").hidden = true;
  byId("forget").hidden = true;
  view.replaceChildren();
  byId("key-text").value = "";
  byId("key-text").focus();
}

const start = () => attempt(async (current) => {
  const response = await request("api/v1/workflows");
  const found = (await response.json()).workflows.filter((each) => each.state === "ready");
  if (!current()) return;
  if (!byId("key").hidden) byId("main").focus();
  byId("key").hidden = true;
  byId("forget").hidden = key.get() === "";
  list(found);
  if (!found.length) {
    view.replaceChildren(el("h2", {}, "Nothing is deployed"),
      el("p", {}, "Deploy a workflow with ", el("code", {}, "adjoin deploy workflow.yaml"), ", then load this page again."));
    return;
  }
  const wanted = found.find((each) => each.name === named()) ?? found[0];
  await open(wanted.name, current);
});

const named = () => decodeURIComponent(location.hash.slice(1));

function list(found) {
  byId("workflows").hidden = false;
  byId("workflows").replaceChildren(el("ul", {}, ...found.map(({ name, description }) =>
    el("li", {}, el("a", { href: `#${encodeURIComponent(name)}`, title: description || null }, name)))));
}

async function open(name, current) {
  for (const link of byId("workflows").querySelectorAll("a")) {
    const here = link.textContent === name;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const place = `api/v1/workflows/${encodeURIComponent(name)}`;
  const workflow = await (await request(place)).json();
  if (!current()) return;
  document.title = `${name} - adjoin`;
  view.replaceChildren(...workflowView(workflow, place));
}

function workflowView(workflow, place) {
  const fields = new Fields(workflow.inputs);
  const begin = el("button", { class: "primary" }, "Run");
  const cancel = el("button", { type: "button", disabled: true, click: () => running?.cancel() }, "Cancel");
  const result = el("div");
  const code = codeView(place, fields);
  // Not validated by the browser: ours is asked first, so that it can speak of JSON too.
  const form = el("form", { novalidate: true, submit: (event) => {
    event.preventDefault();
    const body = fields.body();
    if (body === null) form.reportValidity();
    else if (!cancel.disabled) return;
    else execute(body);
  } }, ...fields.elements, el("div", { class: "line" }, begin, cancel,
    el("span", { class: "note keys" }, "Ctrl + Enter runs")));
  form.addEventListener("input", code.update);
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });

  async function execute(body) {
    const run = (running = new Run(place, workflow));
    result.replaceChildren(run.element);
    run.element.scrollIntoView({ block: "nearest" });
    begin.setAttribute("aria-disabled", "true"); // disabled, it would lose the focus
    cancel.disabled = false;
    try {
      await run.go(body);
    } catch (error) {
      askForKey(error);
    }
    const focused = document.activeElement === cancel;
    begin.removeAttribute("aria-disabled");
    cancel.disabled = true;
    if (focused) begin.focus();
  }

  return [
    el("h2", {}, workflow.name),
    el("p", { class: "note" }, `revision ${workflow.revision}, version `,
      el("code", {}, workflow.version.slice(0, 12))),
    workflow.description && el("p", { class: "text" }, workflow.description),
    form, result, code.element, picture(place),
    el("details", {}, el("summary", {}, "The workflow as YAML"), el("pre", { tabindex: 0 }, workflow.text)),
  ].filter(Boolean);
}

function codeView(place, fields) {
  const shown = { curl: el("pre", { tabindex: 0 }), Python: el("pre", { tabindex: 0 }) };
  const url = new URL(`${place}/invoke`, document.baseURI).href;
  const update = () => {
    const body = fields.body();
    if (body === null) {
      for (const block of Object.values(shown)) block.textContent = "# The form above is not filled in yet.";
      return;
    }
    const made = { url, body, authorized: key.get() !== "" };
    shown.curl.textContent = curl(made);
    shown.Python.textContent = python(made);
  };
  update();
  const parts = Object.entries(shown).flatMap(([name, block]) =>
    [el("div", { class: "line" }, el("h4", {}, name), copier(name, block)), block]);
  const element = el("details", { class: "request", toggle: update },
    el("summary", {}, "This request as curl and Python"), ...parts);
  return { element, update };
}

function copier(name, block) {
  if (!navigator.clipboard) return null; // only where the browser trusts the connection
  const button = el("button", { type: "button", "aria-label": `Copy ${name}`, click: async () => {
    await navigator.clipboard.writeText(block.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } }, "Copy");
  return button;
}

/** Fetched when it is opened: an image's own request would lack the key. */
function picture(place) {
  const element = el("details", { toggle: async () => {
    if (!element.open || element.querySelector("img")) return;
    try {
      const url = URL.createObjectURL(await (await request(`${place}/graph.svg`)).blob());
      element.append(el("img", { src: url, alt: "The stages and what flows between them", class: "graph",
                                 load: () => URL.revokeObjectURL(url) }));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      element.append(problem(error));
    }
  } }, el("summary", {}, "The workflow as a picture"));
  return element;
}

byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set(byId("key-text").value.trim());
  byId("key-text").value = "";
  start();
});
byId("forget").addEventListener("click", () => { key.forget(); location.reload(); });
window.addEventListener("hashchange", () => {
  if (named() !== "main" && byId("key").hidden) start();
});
start();
