// What the page does by itself: it follows a job that goes on, and names local times.  All of it works without.
"use strict";

const MOST = 512 * 1024; // characters of output that stay on the page

function nameTimes(within) {
  for (const time of within.querySelectorAll("time")) {
    time.title = new Date(time.dateTime).toLocaleString();
  }
}

function append(box, text) {
  const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
  box.append(text);
  if (box.textContent.length > MOST) {
    box.textContent = box.textContent.slice(-MOST / 2);
  }
  if (atEnd) {
    box.scrollTop = box.scrollHeight;
  }
}

function follow(output) {
  const note = document.getElementById("live");
  const source = new EventSource(output.dataset.live);
  let busy = false;
  source.addEventListener("job", (event) => {
    const news = JSON.parse(event.data);
    note.textContent = "This page follows the job."; // the first event of each stream
    busy = false;
    document.title = `${news.title} - Jobs`;
    for (const part of ["facts", "history"]) {
      const place = document.getElementById(part);
      place.innerHTML = news[part]; // from the templates of the server, which escape
      nameTimes(place);
    }
  });
  source.addEventListener("output", (event) => {
    const news = JSON.parse(event.data);
    for (const [stream, text] of Object.entries(news.texts)) {
      const box = document.getElementById(stream);
      if (news.again) {
        box.textContent = "";
      }
      append(box, text);
      document.getElementById(`${stream}-size`).textContent = news.sizes[stream];
    }
  });
  source.addEventListener("busy", () => {
    busy = true;
    note.textContent = "Too many pages follow jobs: this one tries again.";
  });
  source.addEventListener("end", () => {
    source.close();
    note.textContent = "The job is over.";
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      note.textContent = "This page no longer follows the job: reload it.";
    } else if (!busy) {
      note.textContent = "The connection is lost: trying again.";
    }
  });
}

nameTimes(document);
for (const box of document.querySelectorAll("pre")) {
  box.scrollTop = box.scrollHeight;
}
const live = document.querySelector("[data-live]");
if (live) {
  follow(live);
}
