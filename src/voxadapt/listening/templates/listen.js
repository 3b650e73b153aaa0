"use strict";
(() => {
  const test = JSON.parse(document.getElementById("test").textContent);
  const HEARD_S = 3; // of a longer clip; a shorter one to its end
  const STORE = `voxadapt-listen/${test.page_sha}`;
  const rated = test.kind === "mos";
  const byId = (id) => document.getElementById(id);
  const trials = new Map(test.trials.map((trial) => [trial.id, trial]));
  const total = (test.trials.length + test.repeats) * test.questions.length;

  // Order and sides follow from the seed alone, so a session is its seed and its answers.
  const random = (seed) => () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let value = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 4294967296;
  };

  const shuffled = (list, next) => {
    const copy = [...list];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = Math.floor(next() * (i + 1));
      [copy[i], copy[j]] = [copy[j], copy[i]];
    }
    return copy;
  };

  const plan = (seed) => {
    const next = random(seed);
    const order = shuffled(test.trials, next);
    for (let i = 1; i < order.length; i++) { // no sentence twice in a row, where that can be
      if (order[i].text !== order[i - 1].text) continue;
      const j = order.findIndex((trial, k) => k > i && trial.text !== order[i].text);
      if (j > 0) [order[i], order[j]] = [order[j], order[i]];
    }
    const items = order.map((trial) => ({
      trial,
      repeat: false,
      shown: next() < 0.5 ? [...trial.clips].reverse() : [...trial.clips],
    }));
    const half = Math.ceil(items.length / 2);
    for (const item of items.slice(0, test.repeats)) { // heard early, once more late, sides swapped
      const at = half + Math.floor(next() * (items.length - half + 1));
      items.splice(Math.max(at, 1), 0, { ...item, repeat: true, shown: [...item.shown].reverse() });
    }
    return items;
  };

  let session = null; // { listener, seed, answers }
  let items = [];
  let heard = []; // by item: plays and heard clips
  let started = null; // when the first clip of the item was played

  const place = () => ({
    index: Math.floor(session.answers.length / test.questions.length),
    question: test.questions[session.answers.length % test.questions.length],
  });
  const state = (index) => (heard[index] ??= { plays: {}, done: new Set() });

  // --- remembering ---

  const remember = () => {
    try {
      localStorage.setItem(STORE, JSON.stringify(session));
      return true;
    } catch {
      return false;
    }
  };

  const recall = () => {
    try {
      const saved = JSON.parse(localStorage.getItem(STORE));
      if (typeof saved.listener !== "string" || !saved.listener) return null;
      if (!Number.isInteger(saved.seed) || saved.seed < 0 || saved.seed >= 2 ** 32) return null;
      if (!Array.isArray(saved.answers) || saved.answers.length > total) return null;
      const planned = plan(saved.seed);
      const fits = saved.answers.every((answer, n) => {
        const item = planned[Math.floor(n / test.questions.length)];
        return (
          answer.trial === item.trial.id &&
          answer.repeat === item.repeat &&
          answer.question === test.questions[n % test.questions.length].id &&
          answer.shown.join() === item.shown.join()
        );
      });
      return fits ? saved : null;
    } catch {
      return null;
    }
  };

  const storable = () => {
    try {
      localStorage.setItem(`${STORE}/probe`, "1");
      localStorage.removeItem(`${STORE}/probe`);
      return true;
    } catch {
      return false;
    }
  };

  // --- sound ---

  const player = new Audio();
  let queue = [];
  let playing = null; // id of the clip

  const silence = () => {
    queue = [];
    playing = null;
    player.pause();
    paintPlayers();
  };

  const play = (ids) => {
    const [id, ...rest] = ids;
    queue = rest;
    playing = id;
    const here = state(place().index);
    here.plays[id] = (here.plays[id] ?? 0) + 1;
    started ??= performance.now();
    player.src = test.audio[id];
    player.play().catch((error) => {
      if (error.name === "AbortError") return; // another clip was asked for
      here.done.add(id); // a clip that will not play must not end the session
      say(`This clip cannot be played here (${error.name}).`);
      silence();
      paintChoices();
    });
    say("");
    paintPlayers();
  };

  const mark = () => {
    state(place().index).done.add(playing);
    paintChoices();
    paintPlayers();
  };

  player.addEventListener("timeupdate", () => {
    if (playing === null) return;
    const bar = byId(`run-${playing}`);
    if (bar && player.duration) bar.style.width = `${(100 * player.currentTime) / player.duration}%`;
    if (player.currentTime >= HEARD_S && !state(place().index).done.has(playing)) mark();
  });
  player.addEventListener("ended", () => {
    if (playing === null) return;
    mark();
    if (queue.length) play(queue);
    else silence();
  });

  // --- what is on the page ---

  const show = (name) => {
    for (const id of ["intro", "trial", "done"]) byId(id).hidden = id !== name;
  };
  const say = (text) => {
    byId("status").textContent = text;
  };
  const element = (tag, text, name) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  };

  const names = (item) => [
    { id: item.trial.reference, name: "Recording", key: "R" },
    ...item.shown.map((id, n) => ({
      id,
      name: rated ? "Clip" : "AB"[n],
      key: rated ? "C" : String(n + 1),
    })),
  ];

  // What has to be heard before the present question can be answered.
  const needed = () => {
    const { index, question } = place();
    const item = items[index];
    return question.uses_reference ? [item.trial.reference, ...item.shown] : item.shown;
  };
  const ready = () => needed().every((id) => state(place().index).done.has(id));

  const paintPlayers = () => {
    const { index } = place();
    byId("all-text").textContent =
      playing !== null ? "Stop" : needed().length > 1 ? "Play in turn" : "Play";
    for (const { id } of names(items[index])) {
      const button = byId(`play-${id}`);
      if (!button) continue;
      button.classList.toggle("playing", id === playing);
      if (id !== playing) byId(`run-${id}`).style.width = "0";
      button.querySelector(".state").textContent =
        id === playing ? "playing" : state(index).done.has(id) ? "heard" : "not heard yet";
    }
  };

  const paintChoices = () => {
    const open = ready();
    for (const button of byId("choices").children) button.disabled = !open;
  };

  const choices = (item, question) =>
    rated
      ? question.scale.map((word, n) => ({ value: n + 1, name: String(n + 1), word }))
      : [
          { value: item.shown[0], name: "A", word: "" },
          { value: null, name: "No difference", word: "" },
          { value: item.shown[1], name: "B", word: "" },
        ];

  const paint = (focus = true) => {
    if (session.answers.length >= total) return finish();
    const { index, question } = place();
    const item = items[index];
    show("trial");
    byId("bar").max = total;
    byId("bar").value = session.answers.length;
    byId("count").textContent = `${index + 1} of ${items.length}`;
    byId("sentence").textContent = item.trial.text;
    byId("asked").textContent = question.text;
    byId("hint").textContent = question.hint;
    const box = byId("players");
    box.replaceChildren();
    for (const { id, name, key } of names(item)) {
      const button = element("button");
      button.type = "button";
      button.id = `play-${id}`;
      button.append(element("strong", name), element("span", "not heard yet", "state"), " ");
      button.append(element("kbd", key));
      const bar = element("span", undefined, "run");
      bar.id = `run-${id}`;
      button.append(bar);
      button.addEventListener("click", () => (playing === id ? silence() : play([id])));
      box.append(button);
    }
    const list = byId("choices");
    list.replaceChildren();
    for (const { value, name, word } of choices(item, question)) {
      const button = element("button");
      button.type = "button";
      button.append(element("strong", name));
      if (word) button.append(element("span", word));
      button.addEventListener("click", () => answer(value));
      list.append(button);
    }
    byId("undo").disabled = session.answers.length === 0;
    paintPlayers();
    paintChoices();
    if (focus) byId("sentence").focus({ preventScroll: true });
  };

  const answer = (choice) => {
    if (!ready()) {
      say(rated ? "Hear the clip first." : "Hear the clips first.");
      return;
    }
    const { index, question } = place();
    const item = items[index];
    session.answers.push({
      trial: item.trial.id,
      repeat: item.repeat,
      question: question.id,
      shown: item.shown,
      choice,
      ms: started === null ? 0 : Math.round(performance.now() - started),
      plays: item.shown.map((id) => state(index).plays[id] ?? 1),
    });
    if (session.answers.length >= total || place().index !== index) started = null;
    if (started === null) stopSound();
    remember();
    say("");
    paint();
  };

  const stopSound = () => {
    queue = [];
    playing = null;
    player.pause();
  };

  const undo = () => {
    if (!session.answers.length) return;
    stopSound();
    session.answers.pop();
    started = null;
    remember();
    paint();
    say("The last answer was taken back.");
  };

  // --- the file ---

  const votes = () =>
    JSON.stringify(
      {
        schema: "voxadapt-votes/1",
        kind: test.kind,
        page_sha: test.page_sha,
        listener: session.listener,
        seed: session.seed,
        finished: session.answers.length >= total,
        trials: session.answers,
      },
      null,
      1,
    ) + "\n";

  const fileName = () => {
    const slug = session.listener.normalize("NFKC").replace(/[^\p{L}\p{N}]+/gu, "-");
    return `votes-${test.kind}-${slug.replace(/^-+|-+$/g, "") || session.seed}.json`;
  };

  const finish = () => {
    stopSound();
    const given = session.answers.length;
    show("done");
    byId("done-title").textContent = given >= total ? "Done. Thank you." : "Stopped for now.";
    byId("done-text").textContent =
      given >= total
        ? "Save the file with your answers and send it back to whoever sent you this page."
        : `You have given ${given} of ${total} answers. You can save them as they are, or go on.`;
    byId("back").textContent = given >= total ? "Undo the last answer" : "Go on";
    byId("export").disabled = given === 0;
    byId("no-file").hidden = given === 0;
    byId("copy").value = given ? votes() : "";
    byId("saved").textContent = "";
    byId("done-title").focus({ preventScroll: true });
  };

  const save = () => {
    if (!session.answers.length) return;
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([votes()], { type: "application/json" }));
    link.download = fileName();
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    byId("saved").textContent = `Saved as ${link.download}.`;
  };

  // --- keys ---

  const toggle = () => (playing === null ? play(needed()) : silence());
  const KEYS = {
    " ": toggle,
    r: () => play([items[place().index].trial.reference]),
    u: undo,
    backspace: undo,
    escape: silence,
  };
  const pick = (n) => () => answer(choices(items[place().index], place().question)[n].value);
  const clip = (n) => () => play([items[place().index].shown[n]]);
  if (rated) {
    KEYS.c = clip(0);
    for (let n = 0; n < 5; n++) KEYS[String(n + 1)] = pick(n);
  } else {
    Object.assign(KEYS, { 1: clip(0), 2: clip(1), 0: pick(1) });
    Object.assign(KEYS, { a: pick(0), b: pick(2) });
    Object.assign(KEYS, { arrowleft: pick(0), arrowdown: pick(1), arrowright: pick(2) });
  }

  document.addEventListener("keydown", (event) => {
    if (byId("trial").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.repeat) return event.key === " " ? event.preventDefault() : undefined;
    // A button or a list of keys that has the focus keeps what Space does to it.
    if (event.key === " " && event.target.closest("button, summary")) return;
    const action = KEYS[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });

  // --- beginning ---

  const begin = (saved) => {
    session = saved;
    items = plan(session.seed);
    heard = [];
    started = null;
    remember();
    paint();
  };

  byId("start").addEventListener("submit", (event) => {
    event.preventDefault();
    const listener = byId("listener").value.trim();
    if (!listener) return;
    const [seed] = crypto.getRandomValues(new Uint32Array(1));
    begin({ listener, seed, answers: [] });
  });
  byId("all").addEventListener("click", toggle);
  byId("undo").addEventListener("click", undo);
  byId("stop").addEventListener("click", finish);
  byId("export").addEventListener("click", save);
  byId("back").addEventListener("click", () =>
    session.answers.length >= total ? undo() : paint(),
  );

  if (!test.trials.length) return;
  const saved = recall();
  byId("no-storage").hidden = storable();
  show("intro");
  if (saved) {
    byId("resume").hidden = false;
    byId("resume-text").textContent =
      `${saved.listener} has given ${saved.answers.length} of ${total} answers here.`;
    byId("continue").addEventListener("click", () => begin(saved));
    byId("again").addEventListener("click", () => {
      byId("resume").hidden = true;
      byId("listener").focus();
    });
  }
})();
