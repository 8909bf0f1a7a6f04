// Convenience only: without this file the buttons do the same.
"use strict";
const root = document.documentElement;
const form = document.getElementById("search");
const input = document.getElementById("picture");
const problem = form.querySelector(".problem");
const drop = document.querySelector(".drop");
root.classList.add("scripted");

function search(files) {
  const file = files[0];
  if (!file) return;
  const most = Number(form.dataset.maxBytes);
  problem.hidden = true;
  if (file.size > most) {
    problem.textContent = `This file has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${(most / 1e6).toFixed(0)} MB.`;
    problem.hidden = false;
    input.value = "";
    return;
  }
  if (input.files !== files) input.files = files;
  root.classList.add("searching");
  form.requestSubmit();
}

input.addEventListener("change", () => search(input.files));
document.addEventListener("paste", (event) => search(event.clipboardData.files));

const bringsFile = (event) => event.dataTransfer.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!bringsFile(event)) return;
  event.preventDefault();
  drop.hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.hidden = true;
});
document.addEventListener("drop", (event) => {
  if (!bringsFile(event)) return;
  event.preventDefault();
  drop.hidden = true;
  search(event.dataTransfer.files);
});

for (const choice of document.querySelectorAll(".filter select")) {
  choice.addEventListener("change", () => choice.form.requestSubmit());
}
// The way back may show the page as it was left.
window.addEventListener("pageshow", () => root.classList.remove("searching"));
