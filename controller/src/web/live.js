// Fetches the parts of the page that change, and puts in those that have changed. The page is whole without this.
"use strict";

const PAUSE_MS = 2000;
const PATIENCE_MS = 8000;

function lost(why) {
  const connection = document.getElementById("connection");
  connection.textContent = why;
  connection.className = "lost";
}

async function look() {
  const answer = await fetch("/live" + location.search, {
    cache: "no-store",
    credentials: "same-origin",
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  if (answer.status === 401) {
    location.assign("/login");
    return;
  }
  if (!answer.ok) throw new Error("the controller answered " + answer.status);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of fresh.querySelectorAll("[id]")) {
    const old = document.getElementById(part.id);
    if (old && old.outerHTML !== part.outerHTML) old.replaceWith(document.adoptNode(part));
  }
}

async function goOn() {
  // Nobody looks at a hidden page.
  if (!document.hidden) {
    try {
      await look();
    } catch (error) {
      lost("the controller does not answer; what you see is old");
    }
  }
  setTimeout(goOn, PAUSE_MS);
}

setTimeout(goOn, PAUSE_MS);
