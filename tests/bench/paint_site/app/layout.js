export const metadata = { title: "Largest contentful paint", icons: "data:," };

export default function Layout({ children }) {
  return (
    <html lang="en">
      <body style={{ margin: 0 }}>{children}</body>
    </html>
  );
}
