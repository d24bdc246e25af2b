-- One transaction: what was there is replaced by what the shop says now. The last statement is the result.
drop view if exists valued;
drop table if exists products;
drop table if exists rates;
create table products (sku text primary key, name text not null, currency text not null, price real not null, quantity integer not null);
create table rates (currency text primary key, rate real not null);

insert into products
select value ->> 'sku', value ->> 'name', value ->> 'currency', value ->> 'price', value ->> 'quantity' from json_each(:products);

insert into rates select key, value from json_each(:rates, '$.rates');

create view valued as
select sku, name, quantity, quantity * price * rate as value from products join rates using (currency);

select count(*) as products, round(sum(value), 2) as value from valued;
