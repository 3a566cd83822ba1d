/* Sound of the recording in view, one clip at a time. */
"use strict";

laughstore.Player = class {
  /* onTime(seconds of the recording) while it plays; onState() when that begins or ends. */
  constructor(onTime, onState) {
    this.audio = new Audio();
    this.audio.preload = "auto";
    this.clips = [];
    this.clip = null;
    this.onTime = onTime;
    this.onState = onState;
    const tick = () => {
      if (this.audio.paused) return;
      this.onTime(this.time);
      requestAnimationFrame(tick);
    };
    this.audio.addEventListener("play", () => {
      this.onState();
      requestAnimationFrame(tick);
    });
    for (const name of ["pause", "ended", "error"]) this.audio.addEventListener(name, () => this.onState());
  }

  get playing() {
    return !this.audio.paused;
  }

  /* Seconds of the recording. */
  get time() {
    return this.clip === null ? 0 : this.clip.start + this.audio.currentTime;
  }

  load(clips) {
    this.stop();
    this.clips = clips;
    this.clip = null;
  }

  stop() {
    this.audio.pause();
  }

  clipAt(time) {
    return this.clips.find((clip) => time >= clip.start && time < clip.end) || null;
  }

  /* The clip at a moment, else the first one behind it, else none. */
  clipFrom(time) {
    return this.clipAt(time) || this.clips.find((clip) => clip.start >= time) || null;
  }

  /* Go to a moment; false where there is no sound of it. */
  seek(time) {
    const clip = this.clipAt(time);
    if (clip === null) {
      this.stop();
      return false;
    }
    if (clip !== this.clip) {
      const goesOn = this.playing;
      if (!clip.url) {
        const bytes = Uint8Array.from(atob(clip.data), (letter) => letter.charCodeAt(0));
        clip.url = URL.createObjectURL(new Blob([bytes], { type: clip.type }));
        clip.data = null;
      }
      this.clip = clip;
      this.audio.src = clip.url;
      if (goesOn) this.audio.play();
    }
    this.audio.currentTime = time - clip.start;
    return true;
  }

  play(time) {
    const clip = this.clipFrom(time);
    if (clip === null) return false;
    this.seek(Math.max(time, clip.start));
    this.audio.play();
    return true;
  }
};
