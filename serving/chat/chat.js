"use strict";

const LABELS = {
  fr: {
    new: "Nouveau", send: "Envoyer", stop: "Arrêter", settings: "Réglages", system: "Consigne (message système)",
    temperature: "Température", length: "Jetons au plus", question: "Posez une question…",
    empty: "Posez une question en français ou en anglais.", loading: "le modèle démarre…", broken: "La réponse s’est interrompue : ",
    offline: "Le serveur ne répond pas.",
  },
  en: {
    new: "New", send: "Send", stop: "Stop", settings: "Settings", system: "System prompt",
    temperature: "Temperature", length: "Max tokens", question: "Ask something…",
    empty: "Ask something in French or in English.", loading: "the model is starting…", broken: "The answer broke off: ",
    offline: "The server does not answer.",
  },
};

const at = (id) => document.getElementById(id);
const remembered = (key, fallback) => localStorage.getItem(`fournil.${key}`) ?? fallback;
const remember = (key, value) => localStorage.setItem(`fournil.${key}`, value);

let messages = [];
let model = null;
let running = null; // AbortController of the answer being streamed

function label(key) {
  return LABELS[at("language").value][key];
}

function translate() {
  document.documentElement.lang = at("language").value;
  for (const node of document.querySelectorAll("[data-label]")) node.textContent = label(node.dataset.label);
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = label(node.dataset.placeholder);
  if (!model) at("model").textContent = label("loading");
}

async function findModel() {
  try {
    const health = await fetch("health");
    if (health.ok) {
      model = (await (await fetch("v1/models")).json()).data[0].id;
      at("model").textContent = model;
      return;
    }
    at("model").textContent = label("loading");
  } catch {
    at("model").textContent = label("offline");
  }
  setTimeout(findModel, 2000);
}

function addTurn(kind, text) {
  const node = document.createElement("div");
  node.className = `turn ${kind}`;
  node.textContent = text;
  at("log").append(node);
  at("empty").hidden = true;
  at("scroll").scrollTop = at("scroll").scrollHeight;
  return node;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const parts = buffer.split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data:\s*/, "");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

async function errorText(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `HTTP ${response.status}`;
  }
}

async function streamAnswer(node) {
  const system = at("system").value.trim();
  const body = {
    model, stream: true, temperature: Number(at("temperature").value), max_tokens: Number(at("length").value),
    messages: system ? [{ role: "system", content: system }, ...messages] : messages,
  };
  const response = await fetch("v1/chat/completions", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: running.signal,
  });
  if (!response.ok) throw new Error(await errorText(response));
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    const atEnd = at("scroll").scrollHeight - at("scroll").scrollTop - at("scroll").clientHeight < 40;
    node.textContent += event.choices[0]?.delta?.content ?? "";
    if (atEnd) at("scroll").scrollTop = at("scroll").scrollHeight;
  }
}

async function answer(question) {
  const conversation = messages; // "New" replaces the list while an answer may still be coming
  conversation.push({ role: "user", content: question });
  addTurn("user", question);
  const node = addTurn("assistant busy", "");
  running = new AbortController();
  at("send").hidden = true;
  at("stop").hidden = false;
  try {
    await streamAnswer(node);
  } catch (error) {
    if (error.name !== "AbortError") addTurn("error", label("broken") + error.message);
  }
  node.classList.remove("busy");
  if (node.textContent) conversation.push({ role: "assistant", content: node.textContent });
  else {
    conversation.pop();
    node.remove();
  }
  running = null;
  at("send").hidden = false;
  at("stop").hidden = true;
  at("question").focus();
}

function submit(event) {
  event.preventDefault();
  const question = at("question").value.trim();
  if (!question || running || !model) return;
  at("question").value = "";
  resize();
  answer(question);
}

function resize() {
  const box = at("question");
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight + 2, 200)}px`;
}

function startOver() {
  running?.abort();
  messages = [];
  at("log").replaceChildren();
  at("empty").hidden = false;
  at("question").focus();
}

function keep(id) {
  at(id).value = remembered(id, at(id).value);
  const show = () => {
    const output = at(`${id}-value`);
    if (output) output.textContent = at(id).value;
    remember(id, at(id).value);
  };
  at(id).addEventListener("input", show);
  show();
}

at("language").value = remembered("language", navigator.language.startsWith("fr") ? "fr" : "en");
at("language").addEventListener("change", () => {
  remember("language", at("language").value);
  translate();
});
for (const id of ["system", "temperature", "length"]) keep(id);
at("form").addEventListener("submit", submit);
at("stop").addEventListener("click", () => running?.abort());
at("new").addEventListener("click", startOver);
at("question").addEventListener("input", resize);
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
});
translate();
findModel();
