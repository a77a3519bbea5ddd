// Reloads the rows every two seconds, unless the page is hidden or the reader uses the table.
const rows = document.getElementById("rows");
const pulse = document.getElementById("pulse");
let isHeld = false;

const button = document.createElement("button");
button.className = "plain";
button.textContent = "Pause";
button.setAttribute("aria-pressed", "false");
button.addEventListener("click", () => {
  isHeld = !isHeld;
  button.textContent = isHeld ? "Continue" : "Pause";
  button.setAttribute("aria-pressed", String(isHeld));
});
pulse.append(button);

async function look() {
  const isBusy = rows.contains(document.activeElement) || String(document.getSelection()) !== "";
  if (document.hidden || isHeld || isBusy) return;
  const answer = await fetch("/ui/live/rows", { headers: { accept: "text/html" } });
  if (answer.status === 401) location.reload();
  if (!answer.ok) return;
  const text = await answer.text();
  if (rows.innerHTML.trim() === "" && text.trim() !== "") location.reload();
  rows.innerHTML = text;
}

setInterval(() => look().catch(() => {}), 2000);
