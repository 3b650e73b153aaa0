"use strict";
(() => {
  const table = JSON.parse(document.getElementById("table").textContent);
  const sets = [...document.querySelectorAll("fieldset")];
  const part = (set, column) => set.querySelector(`[data-column=${column}]`);
  let dirty = false;

  function count() {
    const checked = sets.filter((set) => part(set, "checked").checked).length;
    document.getElementById("count").textContent = `${checked} of ${sets.length} checked`;
  }

  function play(set) {
    document.querySelectorAll("audio").forEach((audio) => audio.pause());
    set.querySelector("audio").play();
  }

  function quoted(cell) {
    const text = /^[=+\-@\t\r]/.test(cell) ? `'${cell}` : cell;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  sets.forEach((set, number) => {
    set.addEventListener("input", () => {
      dirty = true;
      set.classList.toggle("no", part(set, "use").value === "no");
      count();
    });
    part(set, "text").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      part(set, "checked").checked = true;
      dirty = true;
      count();
      const next = sets[number + 1];
      if (next) {
        part(next, "text").focus();
        play(next);
      }
    });
  });

  document.getElementById("save").addEventListener("click", () => {
    const lines = sets.map((set, number) => {
      const row = { ...table.rows[number] };
      row.text = part(set, "text").value.replace(/\s+/g, " ").trim();
      row.checked = part(set, "checked").checked ? "yes" : "no";
      row.use = part(set, "use").value;
      return table.columns.map((name) => quoted(row[name] ?? "")).join(",");
    });
    const text = `\ufeff${[table.columns.map(quoted).join(","), ...lines].join("\r\n")}\r\n`;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = table.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    dirty = false;
  });

  window.addEventListener("beforeunload", (event) => {
    if (dirty) event.preventDefault();
  });
  count();
})();
