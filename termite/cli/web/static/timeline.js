// Draw a build: one row for each slot, and the number of jobs at each time.
// Also renews the part of a page that shows what happens now.
"use strict";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function sized(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const box = canvas.getBoundingClientRect();
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, box.width, box.height);
  context.font = "11px system-ui, sans-serif";
  return { context, width: box.width, height: box.height };
}

function seconds(ms) {
  return ms < 10000 ? (ms / 1000).toFixed(2) + " s" : (ms / 1000).toFixed(1) + " s";
}

class Timeline {
  constructor(canvas, lower, hover, build) {
    this.canvas = canvas;
    this.lower = lower;
    this.hover = hover;
    this.build = build;
    this.end = Math.max(1, ...build.jobs.map((job) => job[4]), ...build.waiting.map((step) => step[0]));
    this.from = 0;
    this.to = this.end;
    this.margin = 90;
    this.row = Math.max(8, Math.min(22, 600 / Math.max(build.tracks.length, 1)));
    canvas.style.height = Math.max(60, this.row * build.tracks.length + 24) + "px";
    this.pointers = new Map();
    this.listen();
    this.draw();
  }

  x(ms, width) {
    return this.margin + ((ms - this.from) / (this.to - this.from)) * (width - this.margin);
  }

  listen() {
    const redraw = () => this.draw();
    new ResizeObserver(redraw).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 0.8 : 1.25, event.offsetX);
    }, { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event.offsetX);
      this.moved = 0;
    });
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerup", (event) => {
      this.pointers.delete(event.pointerId);
      const job = this.jobAt(event.offsetX, event.offsetY);
      if (this.moved < 4 && job) location.href = "/job/" + job[5];
    });
    this.canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    this.canvas.addEventListener("keydown", (event) => {
      const width = this.canvas.clientWidth;
      if (event.key === "+") this.zoom(0.8, width / 2);
      if (event.key === "-") this.zoom(1.25, width / 2);
      if (event.key === "ArrowLeft") this.shift(-0.1);
      if (event.key === "ArrowRight") this.shift(0.1);
    });
  }

  zoom(factor, at) {
    const width = this.canvas.clientWidth - this.margin;
    const part = Math.min(1, Math.max(0, (at - this.margin) / width));
    const centre = this.from + part * (this.to - this.from);
    const span = Math.min(this.end, Math.max(5, (this.to - this.from) * factor));
    this.from = Math.max(0, Math.min(this.end - span, centre - part * span));
    this.to = this.from + span;
    this.draw();
  }

  shift(part) {
    const span = this.to - this.from;
    this.from = Math.max(0, Math.min(this.end - span, this.from + part * span));
    this.to = this.from + span;
    this.draw();
  }

  move(event) {
    if (this.pointers.size === 2) {
      const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
      const before = Math.abs(this.pointers.get(event.pointerId) - others[0][1]);
      const after = Math.abs(event.offsetX - others[0][1]);
      this.moved = 99;
      if (before > 5 && after > 5) this.zoom(before / after, (event.offsetX + others[0][1]) / 2);
    } else if (this.pointers.size === 1) {
      const step = event.offsetX - this.pointers.get(event.pointerId);
      this.moved += Math.abs(step);
      this.shift(-step / (this.canvas.clientWidth - this.margin));
    } else {
      this.show(this.jobAt(event.offsetX, event.offsetY));
    }
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, event.offsetX);
  }

  jobAt(x, y) {
    const track = Math.floor(y / this.row);
    const width = this.canvas.clientWidth;
    const hits = this.build.jobs.filter((job) => job[0] === track && this.x(job[1], width) <= x + 1 && this.x(job[4], width) >= x - 1);
    return x >= this.margin ? hits[hits.length - 1] : undefined;
  }

  show(job) {
    const texts = this.build.texts;
    this.hover.textContent = job
      ? "job " + job[5] + " in " + this.build.tracks[job[0]] + ": " + job[7] + "\nfrom " + seconds(job[1]) + ", " +
        seconds(job[4] - job[1]) + " (sending " + seconds(job[2] - job[1]) + ", running " + seconds(job[3] - job[2]) +
        ", bringing home " + seconds(job[4] - job[3]) + "); " + job[10] + "\n" +
        texts[job[9]] + "; because: " + texts[job[8]] + job.slice(11).map((at) => "\nretried " + texts[at]).join("")
      : "";
  }

  draw() {
    const { context, width, height } = sized(this.canvas);
    this.canvas.dataset.range = Math.round(this.from) + " " + Math.round(this.to); // in ms, for tests
    const fills = ["--well", "--failed", "--here", "--retried", "--good"].map(colour);
    const send = colour("--send"), on = colour("--on");
    for (const job of this.build.jobs) {
      if (job[4] < this.from || job[1] > this.to) continue;
      const y = job[0] * this.row + 1;
      const left = Math.max(this.margin, this.x(job[1], width));
      const right = Math.max(left + 1, this.x(job[4], width));
      context.fillStyle = send;
      context.fillRect(left, y, right - left, this.row - 2);
      const run = Math.max(this.margin, this.x(job[2], width));
      context.fillStyle = fills[job[6]];
      context.fillRect(run, y, Math.max(1, this.x(job[3], width) - run), this.row - 2);
      const name = job[7].slice(job[7].lastIndexOf("/") + 1);
      if (this.row > 14 && right - left > 30 && context.measureText(name).width < right - left - 10) {
        context.fillStyle = on;
        context.fillText(name, left + 5, y + this.row - 6);
      }
    }
    context.clearRect(0, 0, this.margin - 1, height);
    context.fillStyle = colour("--quiet");
    this.build.tracks.forEach((name, at) => context.fillText(name.slice(0, 16), 2, at * this.row + this.row - 4));
    const ticks = width < 600 ? 2 : 4;
    for (let at = 0; at <= ticks; at++) {
      const ms = this.from + (at / ticks) * (this.to - this.from);
      context.fillText(seconds(ms), Math.min(this.x(ms, width), width - 45), height - 5);
    }
    this.drawSteps();
  }

  drawSteps() {
    const { context, width, height } = sized(this.lower);
    const most = Math.max(1, ...this.build.running.map((step) => step[1]));
    const base = height - 14;
    const line = (steps, top, style, fill) => {
      context.beginPath();
      context.moveTo(this.x(this.from, width), base);
      let count = 0;
      for (const [ms, next] of steps) {
        const x = Math.min(width, Math.max(this.margin, this.x(ms, width)));
        context.lineTo(x, base - (Math.min(count, top) / top) * (base - 12));
        context.lineTo(x, base - (Math.min(next, top) / top) * (base - 12));
        count = next;
      }
      context.lineTo(this.x(this.to, width), base);
      context[fill ? "fillStyle" : "strokeStyle"] = style;
      fill ? context.fill() : context.stroke();
    };
    line(this.build.running, most, colour("--well"), true);
    context.fillStyle = colour("--quiet");
    context.fillText("on workers", 2, base - 2);
    context.fillText("at most " + most, 2, 14);
  }
}

async function start() {
  const canvas = document.getElementById("timeline");
  if (canvas) {
    const build = await (await fetch(canvas.dataset.source)).json();
    new Timeline(canvas, document.getElementById("parallel"), document.getElementById("hover"), build);
    canvas.dataset.drawn = String(build.jobs.length);
  }
  const now = document.querySelector("[data-refresh]");
  if (now) setInterval(async () => {
    if (document.hidden) return;
    const answer = await fetch(now.dataset.refresh).catch(() => null);
    if (answer && answer.ok) now.innerHTML = await answer.text();
  }, 2000);
}

start();
