// Whatever a model, a policy or a person wrote reaches the page as text nodes only.

const LETTERS = "ABCDEFGH";
const SCALE = [0, 4]; // HelpSteer2's annotations (arXiv 2406.08673); bars grow beyond it when scores do
const POLL_MS = 4000;
const POLL_TIMEOUT_MS = 10000;
const WINDOW_MS = 60000;
const REFUSED = "The service did not accept the key.";
const NOT_ATTRIBUTES = new Set(["reward", "tokens", "cached_tokens", "truncated", "error"]);
const EXAMPLE = {
  prompt: "Why is the sky blue? Explain it to a ten-year-old.",
  responses: [
    "Sunlight looks white, but it is a mix of all the colours of the rainbow. When it meets the air,"
      + " the tiny air molecules bounce blue light around much more than red light. So blue reaches"
      + " your eyes from every direction, and the whole sky looks blue.",
    "Because of the air.",
    "The sky is blue because the sky is blue because it reflects the ocean, and the the ocean is blue"
      + " because it reflects the sky, which is blue because",
  ],
};

/** Behind a proxy's path prefix the other routes lie beside the page, with or without a last slash. */
const BASE = location.pathname.replace(/\/?$/, "/");
/** Where fetch may send credentials, a 401 with a Basic challenge opens some browsers' own dialog.
 * A service without keys may stand behind a proxy that wants its cookie. */
const KEYED = document.documentElement.dataset.key === "required";
const CREDENTIALS = KEYED ? "omit" : "same-origin";

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

let key = stored();
let state = "waiting";
let locked = KEYED; // until a key is given
let weights = {};
let samples = [];
let timer = 0;
/** @type {AbortController | null} */
let running = null;

// Asking

async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  try {
    return await fetch(BASE + path, { cache: "no-store", credentials: CREDENTIALS, ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw { title: "The service did not answer", detail: `Nothing came back from ${location.host}.` };
  }
}

/** A 2xx answer's JSON; throws a problem. */
async function askJson(path, options) {
  const response = await ask(path, options);
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

/** An RFC 9457 document, or what a proxy in between said. */
async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return {
    title: `${response.status} ${response.statusText}`.trim(),
    detail: "The answer is not the service's own: something between may have refused the request.",
    ...body,
    status: response.status,
    retryAfter: response.headers.get("Retry-After"),
  };
}

/** @returns {{title: string, detail: string, code?: string, request_id?: string, retryAfter?: string}} */
function described(error) {
  return error.title ? error : { title: "The answer could not be read", detail: String(error) };
}

// The key

function stored() {
  try { return sessionStorage.getItem("fivescore-key") ?? ""; } catch { return ""; }
}

function keep(value) {
  key = value;
  try {
    if (key) sessionStorage.setItem("fivescore-key", key);
    else sessionStorage.removeItem("fivescore-key");
  } catch { /* a browser that stores nothing: the key lasts as long as the page */ }
  $("forget").hidden = !key;
}

function wantKey(why = "") {
  keep("");
  locked = true;
  $("key-form").hidden = false;
  $("key").setAttribute("aria-invalid", String(Boolean(why)));
  if (why) write("key-hint", why);
  $("key").focus();
}

async function offerKey(event) {
  event.preventDefault();
  keep($("key").value);
  try {
    await askJson("version");
  } catch (error) {
    if (error.status !== 401) return write("key-hint", described(error).detail);
    return wantKey(REFUSED);
  }
  locked = false;
  $("key").value = "";
  $("key-form").hidden = true;
  $("problem").replaceChildren();
  $("prompt").focus();
  state = "waiting";
  poll();
}

function forgetKey() {
  keep("");
  location.reload();
}

// What is typed

function messagesIn(text) {
  if (!text.trimStart().startsWith("[")) return null;
  try {
    const value = JSON.parse(text);
    return value.length > 0 && value.every(isMessage) ? value : null;
  } catch { return null; }
}

function isMessage(value) {
  return typeof value?.role === "string" && typeof value.content === "string";
}

function tellPromptKind() {
  const text = $("prompt").value;
  const messages = messagesIn(text);
  if (messages) {
    const roles = messages.map((message) => message.role).join(", ");
    write("prompt-hint", `Read as ${count(messages.length, "message")}: ${roles}.`);
  } else if (/^\s*\[\s*{/.test(text)) {
    write("prompt-hint", "Read as plain text: this is not a JSON list of messages.");
  } else {
    write("prompt-hint", 'Plain text, or a JSON list of {"role", "content"} messages.');
  }
}

const boxes = () => [...$("responses").querySelectorAll("textarea")];

function addResponse(text = "") {
  const field = $("response").content.cloneNode(true).firstElementChild;
  const box = field.querySelector("textarea");
  box.value = text;
  box.addEventListener("input", () => boxes()[0].setCustomValidity(""));
  field.querySelector("button").addEventListener("click", () => removeResponse(field));
  $("responses").append(field);
  letterResponses();
  return box;
}

function removeResponse(field) {
  const place = [...$("responses").children].indexOf(field);
  field.remove();
  letterResponses();
  boxes()[Math.min(place, boxes().length - 1)].focus();
}

function letterResponses() {
  const fields = [...$("responses").children];
  fields.forEach((field, place) => {
    const [label, button, box] = field.querySelectorAll("label, button, textarea");
    box.id = label.htmlFor = `response-${LETTERS[place]}`;
    label.textContent = `Response ${LETTERS[place]}`;
    button.ariaLabel = `Remove response ${LETTERS[place]}`;
    button.hidden = fields.length === 1;
  });
  $("add").disabled = fields.length === LETTERS.length;
  $("add").textContent = $("add").disabled ? "Eight responses are the most" : "Add a response";
}

function loadExample() {
  $("prompt").value = EXAMPLE.prompt;
  $("responses").replaceChildren();
  EXAMPLE.responses.forEach((text) => addResponse(text));
  tellPromptKind();
  $("submit").focus();
}

/** The responses to score by letter, without empty boxes; null when the form tells what is missing. */
function readResponses() {
  const filled = boxes().map((box, place) => ({ letter: LETTERS[place], text: box.value }))
    .filter(({ text }) => text !== "");
  boxes()[0].setCustomValidity(filled.length ? "" : "Write at least one response.");
  return $("form").reportValidity() ? filled : null;
}

// Scoring

async function score(event) {
  event.preventDefault();
  if (running) return running.abort();
  const responses = readResponses();
  if (!responses) return;
  const prompt = messagesIn($("prompt").value) ?? $("prompt").value;
  const body = { pairs: responses.map(({ text }) => ({ prompt, response: text })) };
  if ($("principle").value) body.principle = $("principle").value;
  if ($("truncate").checked) body.truncate = "prompt_start";
  running = new AbortController();
  busy(true);
  try {
    await send(body, responses, running.signal);
  } catch (error) {
    if (error.name === "AbortError") write("status", "Stopped.");
    else fail(described(error));
  } finally {
    running = null;
    busy(false);
  }
}

async function send(body, responses, signal) {
  const started = performance.now();
  const text = JSON.stringify(body);
  const response = await ask("score", {
    method: "POST", body: text, signal, headers: { "Content-Type": "application/json" },
  });
  if (!response.ok) throw await problemOf(response);
  const answer = await response.json();
  const milliseconds = performance.now() - started;
  showRanking(responses.map((given, place) => ({ ...given, ...answer.scores[place] })));
  showTiming(answer.usage, response.headers.get("Server-Timing"), milliseconds);
  showCalls(body, text, answer);
  poll();
}

function busy(yes) {
  $("submit").textContent = yes ? "Stop" : "Score";
  if (yes) {
    $("problem").replaceChildren();
    write("status", "Scoring…");
  }
}

function fail(problem) {
  $("ranking").replaceChildren();
  $("calls").hidden = true;
  write("timing", "");
  write("status", "Nothing was scored.");
  const seconds = Number(problem.retryAfter);
  const about = [problem.code, problem.request_id && `request ${problem.request_id}`].filter(Boolean);
  $("problem").append(make("div", {},
    make("strong", {}, problem.title),
    make("p", {}, problem.detail),
    ...(seconds ? [make("p", {}, `Try again in ${count(seconds, "second")}.`)] : []),
    make("p", { className: "hint" }, about.join(" · "))));
  $("problem").scrollIntoView({ block: "nearest" });
  if (problem.status === 401) wantKey(REFUSED);
}

// Showing scores

function showRanking(entries) {
  const scored = entries.filter((entry) => !entry.error).sort((a, b) => b.reward - a.reward);
  const failed = entries.filter((entry) => entry.error);
  const attributes = scored.length ? Object.keys(scored[0]).filter(isAttribute) : [];
  const range = spread(SCALE, scored.flatMap((entry) => attributes.map((name) => entry[name])));
  const rewards = spread([0, 0], scored.map((entry) => entry.reward));
  $("ranking").replaceChildren(
    ...scored.map((entry) => card(entry, scored, attributes, range, rewards)),
    ...failed.map(failedCard));
  write("status", summary(scored, failed, attributes.length ? range : null));
  if ($("results-title").getBoundingClientRect().top > innerHeight / 2) {
    $("results-title").scrollIntoView(); // on a phone the ranking lies below the form
  }
}

const isAttribute = (name) => !NOT_ATTRIBUTES.has(name) && name !== "letter" && name !== "text";

function summary(scored, failed, range) {
  const parts = [`${count(scored.length, "response")} scored.`];
  if (failed.length) parts.push(`${failed.length} failed.`);
  if (scored.length > 1) {
    const best = scored.filter((entry) => entry.reward === scored[0].reward);
    parts.push(`Best: ${best.map((entry) => entry.letter).join(" and ")}.`);
  }
  if (range) parts.push(`Bars run from ${minus(range[0])} to ${minus(range[1])}.`);
  return parts.join(" ");
}

function card(entry, scored, attributes, range, rewards) {
  const place = 1 + scored.filter((other) => other.reward > entry.reward).length;
  const tied = scored.filter((other) => other.reward === entry.reward).length > 1;
  return make("li", {},
    make("div", { className: "top" },
      make("h3", {}, `${place}. Response ${entry.letter}`),
      ...(tied ? [make("span", { className: "tag" }, "tie")] : []),
      make("span", { className: "hint" }, "reward"),
      make("strong", { title: String(entry.reward) }, decimals(entry.reward, 3))),
    bar(entry.reward, rewards, "bar reward"),
    make("p", { className: "said" }, entry.text),
    ...(attributes.length ? [make("dl", { className: "attributes" },
      ...attributes.map((name) => attribute(name, entry[name], range)))] : []),
    make("p", { className: "hint" }, facts(entry)));
}

function attribute(name, value, range) {
  const weight = weights[name];
  return make("div", {},
    make("dt", {}, name, " ", ...(weight === undefined ? [] : [make("small", {}, `× ${minus(weight)}`)])),
    make("dd", {}, bar(value, range, "bar"),
      make("span", { title: String(value) }, decimals(value, 2))));
}

function failedCard(entry) {
  return make("li", { className: "failed" },
    make("div", { className: "top" }, make("h3", {}, `Response ${entry.letter}`),
      make("span", { className: "hint" }, "not ranked")),
    make("p", {}, make("strong", {}, entry.error.code.replaceAll("_", " ")), `: ${entry.error.detail}`),
    make("p", { className: "said" }, entry.text.slice(0, 1000)));
}

function facts(entry) {
  const parts = [count(entry.tokens, "token")];
  if (entry.cached_tokens) parts.push(`${whole(entry.cached_tokens)} from the prefix cache`);
  if (entry.truncated) parts.push("truncated: the oldest tokens were dropped");
  return parts.join(" · ");
}

/** The least whole-numbered range that holds `scale`, zero and all `values`. */
function spread(scale, values) {
  const low = Math.floor(Math.min(...scale, 0, ...values));
  const high = Math.ceil(Math.max(...scale, 0, ...values));
  return [low, high > low ? high : low + 1];
}

/** Decoration: the number stands beside it. It starts at zero, which a line marks. */
function bar(value, [low, high], className) {
  const at = (x) => (100 * (x - low)) / (high - low);
  const fill = make("i");
  fill.style.left = `${at(Math.min(0, value))}%`;
  fill.style.width = `${at(Math.max(0, value)) - at(Math.min(0, value))}%`;
  const track = make("span", { className, ariaHidden: "true" }, fill);
  track.style.setProperty("--zero", `${at(0)}%`);
  return track;
}

function showTiming(usage, serverTiming, milliseconds) {
  const stages = (serverTiming ?? "").split(",").map((part) => /^\s*(\w+);dur=([\d.]+)/.exec(part))
    .filter(Boolean).map(([, stage, duration]) => `${stage} ${Number(duration).toFixed(1)}`);
  const within = stages.length ? `, in the service ${stages.join(", ")}` : "";
  write("timing", `Milliseconds: round trip ${milliseconds.toFixed(1)}${within}.`
    + ` ${count(usage.tokens, "token")}, ${whole(usage.cached_tokens)} of them cached.`);
}

function showCalls(body, text, answer) {
  $("request").textContent = JSON.stringify(body, null, 2);
  $("answer").textContent = JSON.stringify(answer, null, 2);
  $("curl").textContent = curl(location.origin + BASE + "score", text, Boolean(key));
  $("calls").hidden = false;
}

function curl(url, body, withKey) {
  return [`curl -sS ${quote(url)}`,
    ...(withKey ? ['-H "Authorization: Bearer $FIVESCORE_API_KEY"'] : []),
    "-H 'Content-Type: application/json'",
    `--data-raw ${quote(body)}`].join(" \\\n  ");
}

/** A POSIX shell's single quotes: only a quote itself ends them. */
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

async function copy(event) {
  const button = event.currentTarget;
  const source = button.nextElementSibling;
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch { // there is no clipboard on plain http, except on localhost
    getSelection().selectAllChildren(source);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

// The service now

async function poll() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const { status } = await (await ask("health/live", { signal: AbortSignal.timeout(POLL_TIMEOUT_MS) })).json();
    if (status === "ready" && state !== "ready" && !locked) await showModel();
    enter(status);
    if (!locked) await measure();
  } catch (error) {
    if (error.status === 401) wantKey(REFUSED);
    else enter("unreachable");
  }
  clearTimeout(timer);
  timer = setTimeout(poll, POLL_MS);
}

function enter(next) {
  state = next;
  $("state").dataset.state = next;
  write("state", next);
  if (next === "unreachable") showNow((samples = []));
}

async function showModel() {
  const [manifest, models, version] = await Promise.all(["manifest", "v1/models", "version"].map((path) => askJson(path)));
  weights = manifest.reward.weights ?? {};
  $("principle-field").hidden = !manifest.prompt.principle;
  const names = Object.keys(manifest.attributes);
  write("model", models.data[0].id);
  document.title = `${models.data[0].id} · fivescore`;
  write("facts", [
    names.length ? count(names.length, "attribute") : "a reward without attributes",
    `${whole(manifest.max_tokens)} tokens a pair`,
    `fivescore ${version.version} on ${version.engine}`,
    ...(manifest.digest ? [`model ${manifest.digest.slice(0, 12)}`] : []),
    manifest.proved ? "proved against its reference" : "unproved",
  ].join(" · "));
}

async function measure() {
  const response = await ask("metrics", { signal: AbortSignal.timeout(POLL_TIMEOUT_MS) });
  if (!response.ok) throw await problemOf(response);
  const now = sampleOf(await response.text());
  if (samples.length && now.pairs < samples.at(-1).pairs) samples = []; // it was started again
  samples = [...samples.filter((one) => now.at - one.at <= WINDOW_MS), now];
  showNow(samples);
}

/** The few numbers that the page needs of Prometheus' text format. */
function sampleOf(text) {
  const sample = { at: performance.now(), pairs: 0, tokens: 0, cached: 0, inflight: 0, limit: 0, latency: new Map() };
  const readers = {
    fivescore_pairs_total: (value, labels) => { if (labels.includes('outcome="ok"')) sample.pairs = value; },
    fivescore_prompt_tokens_sum: (value) => { sample.tokens = value; },
    fivescore_cached_prompt_tokens_total: (value) => { sample.cached = value; },
    fivescore_inflight_pairs: (value) => { sample.inflight = value; },
    fivescore_inflight_limit: (value, labels) => { if (labels.includes('"pairs"')) sample.limit = value; },
    fivescore_http_request_duration_seconds_bucket: (value, labels) => {
      const bound = /le="([^"]+)"/.exec(labels)?.[1].replace("+Inf", "Infinity");
      if (labels.includes('method="POST"') && labels.includes('status="200"')) {
        sample.latency.set(Number(bound), (sample.latency.get(Number(bound)) ?? 0) + value);
      }
    },
  };
  for (const [, name, labels, value] of text.matchAll(/^(fivescore_\w+)(\{.*\})? (\S+)$/gm)) {
    readers[name]?.(Number(value), labels ?? "");
  }
  return sample;
}

function showNow(window) {
  const [first, last] = [window[0], window.at(-1)];
  const seconds = last ? (last.at - first.at) / 1000 : 0;
  const grown = (name) => last[name] - first[name];
  const each = (name) => (seconds ? rate(grown(name) / seconds) : "–");
  write("pairs", each("pairs"));
  write("tokens", each("tokens"));
  write("cached", seconds && grown("tokens") ? `${Math.round((100 * grown("cached")) / grown("tokens"))} %` : "–");
  $("inflight").replaceChildren(...(last ? [whole(last.inflight), " ", make("small", {}, `of ${whole(last.limit)}`)] : ["–"]));
  write("p50", seconds ? quantile(0.5, first.latency, last.latency) : "–");
  write("p99", seconds ? quantile(0.99, first.latency, last.latency) : "–");
}

/** As Prometheus' histogram_quantile: linear within a bucket. */
function quantile(share, before, after) {
  const buckets = [...after].map(([bound, value]) => [bound, value - (before.get(bound) ?? 0)]).sort((a, b) => a[0] - b[0]);
  const wanted = share * (buckets.at(-1)?.[1] ?? 0);
  if (!wanted) return "–";
  let [low, below] = [0, 0];
  for (const [bound, value] of buckets) {
    if (value >= wanted) {
      return bound === Infinity ? `over ${low} s` : duration(low + ((bound - low) * (wanted - below)) / (value - below));
    }
    [low, below] = [bound, value];
  }
}

// Words and numbers

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** Screen readers read a live region again whenever it is written to. */
function write(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

const minus = (number) => String(number).replace("-", "−");
const whole = (number) => number.toLocaleString("en");
const count = (number, noun) => `${whole(number)} ${noun}${number === 1 ? "" : "s"}`;
const rate = (number) => (number < 100 ? number.toFixed(1) : whole(Math.round(number)));
const duration = (seconds) => (seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);
const decimals = (number, places) => minus(Math.abs(number) < 1e6 ? number.toFixed(places) : number.toExponential(places));

// Start

function scoreByKeyboard(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !running) $("form").requestSubmit();
}

$("form").addEventListener("submit", score);
$("form").addEventListener("keydown", scoreByKeyboard);
$("prompt").addEventListener("input", tellPromptKind);
$("add").addEventListener("click", () => addResponse().focus());
$("example").addEventListener("click", loadExample);
$("key-form").addEventListener("submit", offerKey);
$("forget").addEventListener("click", forgetKey);
document.querySelectorAll("details button").forEach((button) => button.addEventListener("click", copy));
document.addEventListener("visibilitychange", () => { samples = []; poll(); });
$("docs").href = `${BASE}docs`;
$("docs").hidden = KEYED; // a link cannot carry the key
$("forget").hidden = !key;
tellPromptKind();
addResponse();
addResponse();
if (key) locked = false;
if (locked) wantKey();
poll();
