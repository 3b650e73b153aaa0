// What a page of clips does beyond playing: one sound at a time, a line that runs along the
// spectrogram, keys, filters. Without it every clip is still there and plays.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const soundOf = (cell) => cell.querySelector("audio");
  const clips = all(".cell").filter(soundOf);
  const visible = (node) => node.getClientRects().length > 0;
  let queue = [];

  // One at a time.
  document.addEventListener("play", (event) => {
    for (const cell of clips) {
      const sound = soundOf(cell);
      if (sound !== event.target) sound.pause();
      cell.classList.toggle("playing", sound === event.target);
    }
  }, true);
  for (const kind of ["pause", "ended"]) {
    document.addEventListener(kind, (event) => {
      event.target.closest(".cell")?.classList.remove("playing");
    }, true);
  }
  document.addEventListener("ended", () => queue.shift()?.play(), true);

  const playOrPause = (sound) => {
    queue = [];
    if (sound.paused) sound.play(); else sound.pause();
  };

  // The spectrogram shows where the clip is, and a click on it goes there.
  document.addEventListener("timeupdate", (event) => {
    const picture = event.target.closest(".cell")?.querySelector(".mel");
    const sound = event.target;
    if (picture && sound.duration) {
      picture.style.setProperty("--at", `${(100 * sound.currentTime) / sound.duration}%`);
    }
  }, true);
  for (const picture of all(".cell .mel")) {
    picture.addEventListener("click", (event) => {
      const sound = soundOf(picture.closest(".cell"));
      const box = picture.getBoundingClientRect();
      sound.currentTime = (Number(picture.dataset.seconds) * (event.clientX - box.left)) / box.width;
      queue = [];
      sound.play();
    });
  }

  // Keys: all clips are one stop for Tab, arrows move between them, Enter goes into the player.
  document.documentElement.classList.add("scripted");
  let current = null;
  const take = (cell) => {
    if (current) current.tabIndex = -1;
    current = cell;
    if (cell) cell.tabIndex = 0;
  };
  const focus = (cell) => {
    take(cell);
    cell.focus();
    cell.scrollIntoView({ block: "nearest" });
  };
  for (const cell of clips) {
    cell.tabIndex = -1;
    soundOf(cell).tabIndex = -1;
    cell.addEventListener("focusin", () => take(cell));
  }
  const settle = () => { if (!current || !visible(current)) take(clips.find(visible)); };
  settle();
  document.addEventListener("toggle", settle, true);
  const beside = (cell, step) => {
    const shown = clips.filter(visible);
    return shown[shown.indexOf(cell) + step];
  };
  const below = (cell, step) => {
    const groups = all(".cells").filter((group) => visible(group) && group.querySelector("audio"));
    const group = groups[groups.indexOf(cell.closest(".cells")) + step];
    if (!group) return undefined;
    const same = `.cell[data-candidate="${cell.dataset.candidate}"]`;
    const inside = [...all(same, group), ...all(".cell", group)];
    return inside.find((other) => soundOf(other) && visible(other));
  };
  document.addEventListener("keydown", (event) => {
    const cell = event.target;
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape" && cell.closest?.(".cell")) focus(cell.closest(".cell"));
    if (!cell.matches?.(".cell")) return;
    const go = {
      ArrowRight: () => beside(cell, 1), ArrowLeft: () => beside(cell, -1),
      ArrowDown: () => below(cell, 1), ArrowUp: () => below(cell, -1),
    }[event.key];
    if (event.key === " ") playOrPause(soundOf(cell));
    else if (event.key === "Enter") soundOf(cell).focus();
    else if (!go) return;
    event.preventDefault();
    const next = go?.();
    if (next) focus(next);
  });

  // All clips of a sentence, one after the other.
  const playAll = (within) => {
    for (const sound of queue) sound.pause();
    queue = all("audio", within).filter(visible);
    for (const sound of queue) sound.currentTime = 0;
    queue.shift()?.play();
  };
  for (const button of all("button.turn")) {
    const within = button.closest(".sentence, .pair");
    button.hidden = !soundOf(within);
    button.addEventListener("click", () => playAll(within));
  }

  // Sentence by sentence: a bar, or the slider, shows a pair of clips; a bar plays it as well.
  const bars = all("a.bar");
  const slider = document.querySelector(".slider input");
  const show = (index) => {
    for (const [place, bar] of bars.entries()) {
      bar.classList.toggle("shown", place === index);
      document.querySelector(bar.getAttribute("href")).classList.toggle("shown", place === index);
    }
    slider.value = index;
    slider.setAttribute("aria-valuetext", bars[index].getAttribute("aria-label"));
    settle();
  };
  if (bars.length) {
    slider.max = bars.length - 1;
    slider.parentElement.hidden = false;
    slider.addEventListener("input", () => show(Number(slider.value)));
    for (const [index, bar] of bars.entries()) {
      bar.tabIndex = -1;
      bar.addEventListener("click", (event) => {
        event.preventDefault();
        show(index);
        playAll(document.querySelector(bar.getAttribute("href")));
      });
    }
    show(bars.length - 1);
  }

  // What is to be copied, and links into closed parts.
  for (const button of all("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      getSelection().selectAllChildren(code);
      try { await navigator.clipboard.writeText(code.textContent); } catch { document.execCommand("copy"); }
      button.textContent = "Copied";
    });
  }
  const reveal = () => {
    const part = location.hash && document.getElementById(location.hash.slice(1));
    for (let node = part; node; node = node.parentElement) if (node.matches("details")) node.open = true;
    if (part) part.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Filters.
  for (const tools of all(".tools")) {
    const list = document.getElementById(tools.dataset.list);
    const drawn = [...list.children];
    const items = drawn.filter((node) => node.matches(".sentence"));
    const number = (item, name) => Number(item.dataset[name] ?? 0);
    const change = (item) => Math.abs(number(item, "change"));
    const orders = {
      error: (a, b) => number(b, "error") - number(a, "error"),
      change: (a, b) => change(b) - change(a),
      worse: (a, b) => number(b, "change") - number(a, "change"),
      better: (a, b) => number(a, "change") - number(b, "change"),
    };
    const first = (order, measure, count = 10) =>
      new Set(items.filter((item) => measure(item) > 0).sort(order).slice(0, count));
    const views = {
      all: new Set(items),
      worst: first(orders.error, (item) => number(item, "error")),
      change: first(orders.change, change),
      flagged: new Set(items.filter((item) => number(item, "flags") > 0)),
    };
    const [find, sort, voices] = ["find", "sort", "voices"].map((n) => tools.querySelector(`[name$="${n}"]`));
    const status = tools.querySelector("[role=status]");

    const filter = () => {
      const view = tools.querySelector("input[type=radio]:checked").value;
      const wanted = find.value.trim().toLocaleLowerCase();
      const kept = items.filter((item) => views[view].has(item)
        && item.querySelector("summary").textContent.toLocaleLowerCase().includes(wanted));
      const plain = view === "all" && sort.value === "drawn" && !wanted;
      const sequence = sort.value === "drawn" ? kept : [...kept].sort(orders[sort.value]);
      for (const item of items) item.hidden = !kept.includes(item);
      for (const node of drawn) if (!items.includes(node)) node.hidden = !plain;
      for (const node of plain ? drawn : sequence) list.append(node);
      list.classList.toggle("few", voices.value === "few");
      for (const cell of all(".cell audio", list)) if (!visible(cell)) cell.pause();
      status.textContent = kept.length === items.length
        ? `${items.length} sentences` : `${kept.length} of ${items.length} sentences`;
    };
    for (const radio of all("input[type=radio]", tools)) {
      radio.addEventListener("change", () => {
        sort.value = { worst: "error", change: "change" }[radio.value] ?? "drawn";
        filter();
        if (radio.value !== "all") for (const item of views[radio.value]) item.open = true;
      });
    }
    find.addEventListener("input", filter);
    sort.addEventListener("change", filter);
    voices.addEventListener("change", filter);
    tools.querySelector("button.open").addEventListener("click", () => {
      const shown = items.filter((item) => !item.hidden);
      const open = shown.some((item) => !item.open);
      for (const item of shown) item.open = open;
    });
    tools.hidden = false;
    filter();
  }
})();
