"use strict";
/* The chat page of the service. What anybody wrote goes in by textContent alone; the key stays in this tab. */
const KEPT = "ontopic-key";
const LOOK_MS = 3000, LOOKS = 200;
const find = (id) => document.getElementById(id);
const part = (name) => find(name).content.firstElementChild.cloneNode(true);
/* What hides or reorders text is an escape, as `inert` in ontopic/reports/shown.py makes it. */
const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Cn}\p{Zl}\p{Zp}]/gu;
const escaped = (it) => ("\n\t\u200c\u200d".includes(it) ? it : `\\u${it.codePointAt(0).toString(16).padStart(4, "0")}`);
const shown = (text) => String(text).replace(/\r\n?/g, "\n").replace(HIDDEN, escaped);
let model = "", messages = [], conversation = crypto.randomUUID ? crypto.randomUUID() : String(Math.random());

async function call(path, body) {
  const headers = { "Content-Type": "application/json", "x-conversation-id": conversation };
  const key = sessionStorage.getItem(KEPT);
  if (key) headers.Authorization = `Bearer ${key}`;
  const asked = body ? { method: "POST", body: JSON.stringify(body), headers } : { headers };
  const response = await fetch(path, { ...asked, credentials: "omit", redirect: "error" });
  const found = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error((found.error && found.error.message) || `the service answered ${response.status}`);
    error.status = response.status;
    throw error;
  }
  return { found, headers: response.headers };
}

async function enter() {
  try {
    const { found } = await call("/v1/models");
    model = found.data[0].id;
    find("who").textContent = shown(`${model}, version ${found.data[0].version}`);
    find("key-form").hidden = true;
    find("ask-form").hidden = false;
    find("forget").hidden = !sessionStorage.getItem(KEPT);
    find("question").focus();
  } catch (error) {
    if (error.status === 401) sessionStorage.removeItem(KEPT);
    const refused = error.status === 401 && find("key").value;
    find("who").textContent = shown(refused || error.status !== 401 ? sentence(error.message) : "");
    find("key-form").hidden = false;
    find("ask-form").hidden = true;
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function badge(status, text) {
  const it = document.createElement("span");
  it.className = `badge ${status}`;
  it.textContent = shown(text);
  return it;
}

function subject(side, verdict) {
  const said = { pass: ["passed", "✓ yes"], fail: ["failed", "✕ no"] }[verdict && verdict.outcome];
  const why = verdict && verdict.outcome === "unjudged" ? `not judged: ${verdict.cause || "no cause given"}` : "not judged yet";
  const [status, text] = said || ["neutral", `– ${why}`];
  const score = said && verdict.score !== null ? `, score ${verdict.score.toFixed(2)}` : "";
  side.querySelector(".subject").replaceChildren("On the subject: ", badge(status, text), `${score} (truth is not judged)`);
}

function guard(side, of) {
  const line = side.querySelector(".guard");
  if (!of) return void (line.textContent = "Guard: none looked at it");
  const would = of.mode === "observe" ? "would have stopped" : "stopped";
  const score = (name, value) => (value === null ? "" : `; ${name} ${value.toFixed(2)}`);
  const said = of.failure ? `could say nothing (${of.failure})` : of.stage ? `${would} the ${of.stage}` : "passed it";
  const scores = score("question in scope", of.scope_score) + score("answer keeps to it", of.answer_score);
  line.textContent = shown(`Guard (${of.mode === "observe" ? "only watches" : "enforced"}): ${said}${scores}`);
}

function addSide(section, { whose, note, text, role }) {
  const side = part("side");
  side.classList.add(`by-${role}`);
  side.querySelector("b").textContent = shown(whose);
  side.querySelector(".whose .note").textContent = shown(note);
  side.querySelector(".text").textContent = shown(text);
  section.querySelector(".sides").append(side);
  return side;
}

function follow(section, side, record) {
  let looks = 0, beside = null;
  const look = async () => {
    const { found } = await call(`/v1/answers/${encodeURIComponent(record)}`).catch(() => ({ found: null }));
    if (found) {
      guard(side, found.guard);
      subject(side, found.verdict);
      const other = found.beside[0];
      const waits = other || found.challenger;
      if (waits && !beside) {
        beside = addSide(section, { whose: `Version ${waits}`, note: "challenger, unseen by others", text: "", role: "challenger" });
        beside.querySelector(".subject").textContent = "On the subject: not judged here; the rollout compares it";
        beside.querySelector(".guard").textContent = "";
      }
      if (other && beside) {
        beside.querySelector("b").textContent = shown(`Version ${other.model_version}`);
        beside.querySelector(".text").textContent = shown(other.answer);
      } else if (beside) beside.querySelector(".text").textContent = "Answers when no user waits …";
      if (found.verdict && (other || !found.challenger)) return;
    }
    if (++looks < LOOKS) setTimeout(look, LOOK_MS * (1 + Math.floor(looks / 10)));
  };
  look();
}

function feedback(section, record) {
  const area = section.querySelector(".feedback");
  const told = area.querySelector("[role=status]"), correction = area.querySelector("textarea");
  area.hidden = false;
  for (const button of area.querySelectorAll("button"))
    button.addEventListener("click", async () => {
      const thumb = button.dataset.thumb;
      try {
        await call("/v1/feedback", { record_id: record, thumb, correction: correction.value });
        for (const each of area.querySelectorAll("[aria-pressed]"))
          each.setAttribute("aria-pressed", String(each.dataset.thumb === thumb));
        told.textContent = shown(correction.value.trim() ? "Thumb and correction are kept." : "The thumb is kept.");
      } catch (error) { told.textContent = shown(sentence(error.message)); }
    });
}

async function ask(question) {
  const section = part("answered");
  section.querySelector(".question").textContent = shown(question);
  find("answers").append(section);
  const side = addSide(section, { whose: model, note: "", text: "Answers …", role: "champion" });
  const asked = [...messages, { role: "user", content: question }];
  try {
    const { found, headers } = await call("/v1/chat/completions", { model, messages: asked });
    const text = found.choices[0].message.content, cut = headers.get("x-ontopic-max-tokens");
    messages = [...asked, { role: "assistant", content: text }];
    side.querySelector("b").textContent = shown(`Version ${headers.get("x-ontopic-model-version")}`);
    const end = { length: `cut at the most tokens${cut ? ` (${cut})` : ""}`, content_filter: "the guard's refusal" };
    side.querySelector(".whose .note").textContent = shown(end[found.choices[0].finish_reason] || "");
    side.querySelector(".text").textContent = shown(text || "(an empty answer)");
    subject(side, null);
    const record = headers.get("x-ontopic-record-id");
    feedback(section, record);
    follow(section, side, record);
  } catch (error) {
    side.querySelector(".text").textContent = shown(sentence(error.message));
    if (error.status === 401) enter();
  }
  section.scrollIntoView({ block: "nearest" });
}

find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEPT, find("key").value.trim());
  enter().then(() => (find("key").value = ""));
});
find("ask-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = find("question"), button = event.submitter || find("ask-form").querySelector("[type=submit]");
  const question = field.value.trim();
  if (!question || button.disabled) return;
  field.value = "";
  button.disabled = true;
  await ask(question);
  button.disabled = false;
  field.focus();
});
find("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    find("ask-form").requestSubmit();
  }
});
find("anew").addEventListener("click", () => {
  messages = [];
  conversation = crypto.randomUUID ? crypto.randomUUID() : String(Math.random());
  find("answers").replaceChildren();
  find("question").focus();
});
find("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEPT);
  messages = [];
  find("answers").replaceChildren();
  find("who").textContent = "";
  find("ask-form").hidden = true;
  find("key-form").hidden = false;
  find("key").focus();
});
if (find("key-form").hidden || sessionStorage.getItem(KEPT)) enter();
