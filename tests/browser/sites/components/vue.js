import { createApp } from "vue";
import Lakes from "./Lakes.vue";

createApp(Lakes).mount("main");
