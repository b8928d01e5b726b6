// The stages of a run as a list that follows its progress.

import { el, grow, seconds } from "./dom.js";
import { above } from "./progress.js";

const MOST_BELOW = 30;
const MARKS = { waiting: "○", running: "◐", done: "●", skipped: "–", retrying: "↻", failed: "✕",
                stopped: "■", "not run": "○" };

export class StageList {
  constructor(answers) {
    this.answers = answers;
    this.element = el("ol", { class: "stages" });
    this.rows = new Map();
    this.below = new Map();
  }

  update(progress, now) {
    for (const stage of progress.stages.values()) {
      const row = this.rows.get(stage.name) ?? this.#add(stage.name);
      row?.update(stage, progress, now);
    }
  }

  #add(name) {
    const parent = above(name);
    const row = new Row(name.slice(parent.length).replace("/", ""), !this.answers.has(name));
    if (parent === "") {
      this.element.append(row.element);
    } else {
      if (!this.rows.has(parent)) this.#add(parent);
      const known = this.below.get(parent) ?? this.#nest(parent);
      known.count += 1;
      if (known.count <= MOST_BELOW) known.list.append(row.element);
      else known.more.textContent = `and ${known.count - MOST_BELOW} more`;
    }
    this.rows.set(name, row);
    return row;
  }

  #nest(parent) {
    const list = el("ol", { class: "stages" });
    const more = el("p", { class: "note" });
    const known = { list, more, count: 0 };
    this.rows.get(parent).element.append(list, more);
    this.below.set(parent, known);
    return known;
  }
}

class Row {
  constructor(label, showsText) {
    this.mark = el("span", { class: "mark", "aria-hidden": "true" });
    this.state = el("span", { class: "state" });
    this.time = el("span", { class: "time" });
    this.note = el("p", { class: "note" });
    this.text = showsText ? new Said("Its text") : null;
    this.element = el("li", {},
      el("div", { class: "row" }, this.mark, el("code", {}, label), this.state, this.time),
      this.note, this.text?.element);
  }

  update(stage, progress, now) {
    this.element.dataset.state = stage.state;
    set(this.mark, MARKS[stage.state]);
    set(this.state, stage.attempt > 1 ? `${stage.state}, attempt ${stage.attempt}` : stage.state);
    set(this.time, timeOf(stage, progress, now));
    set(this.note, [stage.error || stage.note, ...stage.warnings].filter(Boolean).join("\n"));
    this.text?.update(stage.said);
  }
}

function timeOf(stage, progress, now) {
  if (stage.seconds !== null) return seconds(stage.seconds);
  if (stage.state === "running") return seconds(Math.max(0, progress.clock(now) - stage.began));
  const expected = stage.state === "waiting" && stage.predicted >= 0.005;
  return expected ? `about ${seconds(stage.predicted)}` : "";
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** What a stage has said: its samples as they come, with the thoughts before each folded away. */
export class Said {
  constructor(title) {
    this.samples = [];
    this.body = el("div", { class: "said" });
    this.element = title === null ? this.body
      : el("details", { hidden: true }, el("summary", {}, title), this.body);
  }

  update(said) {
    said.forEach((sample, choice) => {
      let shown = this.samples[choice];
      if (shown?.of !== sample) {
        const next = this.#sample(sample, choice);
        if (shown) shown.element.replaceWith(next.element);
        else this.body.append(next.element);
        this.samples[choice] = shown = next;
      }
      grow(shown.text, sample.text);
      grow(shown.thoughts, sample.thoughts);
      shown.fold.hidden = !sample.thoughts;
    });
    this.element.hidden = !said.length;
  }

  #sample(of, choice) {
    const [text, thoughts] = [document.createTextNode(""), document.createTextNode("")];
    const fold = el("details", { hidden: true }, el("summary", {}, "Thoughts"),
                    el("p", { class: "text note" }, thoughts));
    const head = choice ? el("p", { class: "note" }, `Sample ${choice + 1}`) : null;
    return { of, text, thoughts, fold, element: el("div", {}, head, fold, el("p", { class: "text" }, text)) };
  }
}
