// What is known of a run, from its events. No elements here.

/** What a stage is part of: `tree#2/draft` of `tree#2`, that and `tree[3]` of `tree`, `tree` of "". */
export const above = (stage) => stage.slice(0, Math.max(0, stage.search(/(\[[^[\]]*\]|#\d+|\/[^/[#]*)$/)));

const stageOf = (name) => ({
  name, state: "waiting", began: 0, seconds: null, predicted: null, worker: "", attempt: 1,
  note: "", error: "", warnings: [], said: [],
});

export class Progress {
  /** `stages` in the order in which they are shown. */
  constructor(stages) {
    this.stages = new Map(stages.map((name) => [name, stageOf(name)]));
    this.state = "queued"; // then running; succeeded, failed, cancelled
    this.outputs = null;
    this.usage = null;
    this.error = null;
    this.seconds = null;
    this.zero = 0; // of the run's clock, on this one's
  }

  get ended() {
    return !["queued", "running"].includes(this.state);
  }

  /** Seconds since the run began, as of a reading of performance.now(). */
  clock(now) {
    return Math.max(0, (now - this.zero) / 1000);
  }

  apply(event, now) {
    const { body, at } = event;
    const stage = event.stage ? this.#stage(event.stage) : null;
    switch (body.type) {
      case "RunStarted":
        this.state = "running";
        this.zero = now - at * 1000;
        break;
      case "RunPlanned":
        for (const [name, worker] of Object.entries(body.placement)) {
          const placed = this.#stage(name);
          placed.worker = worker;
          placed.predicted = body.predicted[name] ?? null;
        }
        break;
      case "StageStarted":
        if (stage.state !== "waiting") stage.said = []; // another attempt begins anew
        Object.assign(stage, { state: "running", began: at, seconds: null, note: "", error: "",
                               worker: body.worker, attempt: event.attempt });
        break;
      case "ModelLoading":
        stage.note = `${body.model} is loading (${body.phase})`;
        break;
      case "ModelReady":
        stage.note = "";
        break;
      case "Progress":
        stage.note = `${body.label} ${body.done}${body.total ? ` of ${body.total}` : ""}`;
        break;
      case "Tokens":
        for (const token of body.tokens) say(stage, token);
        break;
      case "StageCompleted":
        finish(stage, "done", at);
        break;
      case "StageSkipped":
        finish(stage, "skipped", at);
        break;
      case "StageFailed":
        finish(stage, body.retry ? "retrying" : "failed", at);
        stage.error = body.error.message;
        break;
      case "StageWarning":
        stage.warnings.push(`${body.what}: ${body.why} (${body.where}); ${body.hint}`);
        break;
      case "WorkerLost":
        for (const name of body.stages) {
          Object.assign(this.#stage(name), { state: "waiting", note: `${body.worker} was lost`, said: [] });
        }
        break;
      case "RunCompleted":
        this.outputs = body.outputs;
        this.usage = body.usage;
        this.#end("succeeded", at);
        break;
      case "RunFailed":
        this.error = body.error;
        this.#end("failed", at);
        break;
      case "RunCancelled":
        this.#end("cancelled", at);
        break;
    }
  }

  #stage(name) {
    if (!this.stages.has(name)) this.stages.set(name, stageOf(name));
    return this.stages.get(name);
  }

  #end(state, at) {
    this.state = state;
    this.seconds = at;
    for (const stage of this.stages.values()) {
      if (stage.state === "running" || stage.state === "retrying") finish(stage, "stopped", at);
      else if (stage.state === "waiting") stage.state = "not run";
    }
  }
}

function say(stage, token) {
  const said = (stage.said[token.choice] ??= { text: "", thoughts: "" });
  said[token.reasoning ? "thoughts" : "text"] += token.text;
}

function finish(stage, state, at) {
  stage.state = state;
  stage.seconds = stage.began || state === "done" ? at - stage.began : null;
  stage.note = "";
}
