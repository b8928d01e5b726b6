// The service's API: the key, requests, problems, and streams of events.

const KEY = "adjoin.key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

/** An error as problem details (RFC 9457) tell it. */
export class Problem extends Error {
  constructor(details) {
    super(details.detail ?? "");
    this.details = details;
  }

  /** Of the error inside an event, which has the same facts under other names. */
  static ofEvent(error) {
    const { message, details, ...rest } = error;
    return new Problem({ ...rest, ...details, detail: message });
  }
}

const lost = (run) =>
  new Problem({
    title: "No connection",
    detail: run ? "the connection to the service was lost, and the run has ended with it"
                : "the service does not answer",
    hint: "is it still running?",
    run,
  });

/** The response to a request; throws a Problem for whatever is no success. */
export async function request(path, { method = "GET", body, accept, signal } = {}) {
  const headers = {};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (accept) headers.Accept = accept;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body, signal, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : lost();
  }
  if (response.ok) return response;
  let details = { title: response.statusText, status: response.status };
  try {
    details = { ...details, ...(await response.json()) };
  } catch {
    details.detail = "the answer is not the service's own"; // a proxy's page, for one
  }
  throw new Problem({ ...details, wait: response.headers.get("Retry-After") });
}

/** The events of a stream, in order. It throws a Problem when the stream ends before the run. */
export async function* events(response) {
  const run = response.headers.get("X-Run-Id");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : lost(run);
    }
    if (piece.done) return;
    let searched = Math.max(0, rest.length - 1);
    rest += piece.value;
    for (let end; (end = rest.indexOf("\n\n", searched)) >= 0; searched = 0) {
      const data = rest.slice(0, end).split("\n").find((line) => line.startsWith("data: "));
      rest = rest.slice(end + 2);
      if (data) yield JSON.parse(data.slice(6));
    }
  }
}
