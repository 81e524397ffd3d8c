import Image from "next/image";

export default async function Page({ searchParams }) {
  const { photo } = await searchParams;
  return <Image src={photo} width={1600} height={1200} sizes="100vw" style={{ width: "100%", height: "auto" }} alt="A lake" />;
}
