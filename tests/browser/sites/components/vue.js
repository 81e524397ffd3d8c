import { createApp } from "vue";
import Photo from "./Photo.vue";

createApp(Photo).mount("main");
