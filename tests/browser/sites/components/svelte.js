import { mount } from "svelte";
import Lakes from "./Lakes.svelte";

mount(Lakes, { target: document.querySelector("main") });
