// One run: the request, its events as they come, and its end.

import { Problem, events, request } from "./api.js";
import { el, seconds } from "./dom.js";
import { Progress } from "./progress.js";
import { Said, StageList } from "./stages.js";
import { outputs, problem } from "./values.js";

const TICK_MS = 100;
const SAYS = { queued: "Waiting for its turn", running: "Running", succeeded: "Done",
               failed: "Failed", cancelled: "Cancelled" };

export class Run {
  /** `place` is the workflow's address at the API, `answers` those of its stages that say its answer. */
  constructor(place, { stages, answers }) {
    this.place = place;
    this.progress = new Progress(stages);
    this.aborting = new AbortController();
    this.id = null;
    this.status = el("p", { role: "status", class: "status" });
    this.timer = el("span", { class: "time", "aria-hidden": "true" });
    this.said = answers.map((name) => ({ name, view: new Said(null) }));
    this.answer = el("div", { class: "answer" }, ...this.said.map(({ view }) => view.element));
    this.ending = el("div");
    this.list = new StageList(new Set(answers));
    this.element = el("section", { "aria-labelledby": "run-title", class: "run" },
      el("div", { class: "line" }, el("h3", { id: "run-title" }, "Answer"), this.timer),
      this.status, this.answer, this.ending, el("h3", {}, "Stages"), this.list.element);
  }

  /** Run it to its end; never throws but for a key that is not valid. */
  async go(body) {
    const ticks = setInterval(() => this.#show(), TICK_MS);
    this.#show();
    try {
      const response = await request(`${this.place}/invoke`,
        { method: "POST", body, accept: "text/event-stream", signal: this.aborting.signal });
      this.id = response.headers.get("X-Run-Id");
      for await (const event of events(response)) this.progress.apply(event, performance.now());
      if (!this.progress.ended) throw new Problem({ title: "The stream ended before the run" });
    } catch (error) {
      if (error.name === "AbortError") this.progress.state = "cancelled";
      else this.#refuse(error);
    } finally {
      clearInterval(ticks);
      this.#show();
      this.#end();
    }
  }

  /** End the run; its last events still come. */
  async cancel() {
    if (this.id === null) return this.leave();
    try {
      await request(`api/v1/runs/${encodeURIComponent(this.id)}`, { method: "DELETE" });
    } catch {
      this.leave();
    }
  }

  /** Take no more of it; the service ends a run whose reader has left. */
  leave() {
    this.aborting.abort();
  }

  #refuse(error) {
    if (!(error instanceof Problem)) throw error;
    this.progress.state = "failed";
    this.refusal = error;
    if (error.details.status === 401) throw error;
  }

  #show() {
    const now = performance.now();
    const { progress } = this;
    if (this.status.textContent !== SAYS[progress.state]) this.status.textContent = SAYS[progress.state];
    this.element.dataset.state = progress.state;
    if (progress.state === "running") this.timer.textContent = seconds(progress.clock(now));
    for (const { name, view } of this.said) view.update(progress.stages.get(name)?.said ?? []);
    this.list.update(progress, now);
  }

  #end() {
    const { progress } = this;
    this.timer.textContent = progress.seconds === null ? "" : seconds(progress.seconds);
    if (progress.state === "succeeded") {
      this.status.textContent = `Done${usage(progress.usage)}`;
      this.#replaceAnswer();
    }
    const error = this.refusal ?? (progress.error && Problem.ofEvent(progress.error));
    if (error) this.ending.append(problem(error));
  }

  /** What was said while it ran is part of the outputs; only thoughts are not. */
  #replaceAnswer() {
    const thoughts = this.answer.querySelectorAll("details:not([hidden])");
    this.answer.replaceChildren(...thoughts, ...outputs(this.progress.outputs));
  }
}

function usage({ prompt, cached, generated, embedded, cold_start_seconds: cold }) {
  const parts = [
    prompt && `${prompt} tokens read${cached ? ` (${cached} from cache)` : ""}`,
    generated && `${generated} generated`,
    embedded && `${embedded} embedded`,
    cold > 0.05 && `waited ${seconds(cold)} for models`,
  ].filter(Boolean);
  return parts.length ? `: ${parts.join(", ")}` : "";
}
